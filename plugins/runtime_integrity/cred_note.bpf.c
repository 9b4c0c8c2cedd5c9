/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What is noted of a thread's credentials: a copy of what they hold, and sums of what they only point to; and of its
 * seccomp.
 *
 * A struct cred is never written once a thread has it, and neither is its list of groups: the kernel makes new ones. Of
 * a user namespace the parent, level and owner stay as well, and each map of ids from when it is written on. The
 * initial namespace is everybody's: whoever changed it would have all of them judged, so that it is looked at for
 * itself.
 */

#define RUNTIME_INTEGRITY_CRED_START __builtin_offsetof(struct cred, uid)
/* All that a struct cred says, from the first user id to the groups: ids, securebits, capabilities, keyrings, the blob
 * of the security modules, whom resources are charged to, and the user namespace. Behind it are only means of freeing
 * it. */
#define RUNTIME_INTEGRITY_CRED_BYTES (__builtin_offsetof(struct cred, group_info) + 8 - RUNTIME_INTEGRITY_CRED_START)
#define RUNTIME_INTEGRITY_CRED_WORDS (RUNTIME_INTEGRITY_CRED_BYTES / 4)
#define RUNTIME_INTEGRITY_WORD(offset) (((offset) - RUNTIME_INTEGRITY_CRED_START) / 4)

#define RUNTIME_INTEGRITY_SUMMED 32 /* bytes of one step of a sum: they lie on the stack */
#define RUNTIME_INTEGRITY_GROUP_BYTES 24 /* of one step of theirs: less than that, for a mask to be the bound */
#define RUNTIME_INTEGRITY_GROUP_STEPS 11 /* 66 groups */
#define RUNTIME_INTEGRITY_NESTING 3 /* namespaces that are gone up from the initial one, where it has any above */

struct runtime_integrity_creds {
	u64 start_time; /* of the process, since de_thread() gives an exec'ing thread that of its leader: the memory of
			 * a task is used again */
	u64 noted; /* when, in ns since boot; 0: before sums could be made; of what is older than
		    * runtime_integrity_followed(), nothing is judged */
	u64 cred; /* address of the credentials */
	u32 told; /* address of those that it was told to act by, which are not its own: its lower half */
	u32 groups; /* sums: of the list of groups, of what a user namespace is, of its maps of users and of groups */
	u32 namespace;
	u32 maps[2]; /* 0: not written yet */
	u8 owns; /* 1: the machine, as runtime_integrity_owns_the_machine() has it */
	u8 told_owns; /* 1: and it was told */
	u8 no_new_privileges; /* 1: it has given them up, for good */
	u8 spare;
	struct runtime_integrity_seccomp seccomp;
	u32 words[RUNTIME_INTEGRITY_CRED_WORDS];
} __attribute__((aligned(8)));

/* By the address of the task, which it keeps when an exec gives it another number. */
BPF_HASH(runtime_integrity_shadow, u64, struct runtime_integrity_creds, RUNTIME_INTEGRITY_CRED_THREADS);
/* How often a thread was not noted, for there was no room or the map was busy, since the start. */
BPF_ARRAY(runtime_integrity_unfollowed, u64, 1);

/* Kept is half of a sum, for this lies on the stack. */
#define RUNTIME_INTEGRITY_KEPT(sum) ((u32)((sum) >> 32))

/* A sum goes on with up to RUNTIME_INTEGRITY_SUMMED bytes. By a factor that is another one at each start of the agent,
 * so that nobody can choose what he writes by the sum; high bits are mixed into low ones before, or two changes of the
 * highest bit would make up for each other whatever the factor is. */
static __always_inline u64 runtime_integrity_sum(u64 sum, u64 factor, void *from, u64 bytes)
{
	u64 read[RUNTIME_INTEGRITY_SUMMED / 8] = {};

	bpf_probe_read_kernel(read, bytes, from);
#pragma unroll
	for (int i = 0; i < RUNTIME_INTEGRITY_SUMMED / 8; i++) {
		sum += read[i];
		sum = (sum ^ sum >> 32) * factor;
	}
	return sum;
}

static __always_inline u64 runtime_integrity_sum_of_groups(u64 factor, struct group_info *groups)
{
	u64 number = (u32)KRIE_READ(group_info, groups, ngroups);
	u64 sum = number + 1;

	for (u64 step = krie_uncounted(); step < RUNTIME_INTEGRITY_GROUP_STEPS && KRIE_GOES_ON; step++) {
		u64 done = step * RUNTIME_INTEGRITY_GROUP_BYTES;
		u64 left = 4 * number - done;
		u64 bytes;

		if (done >= 4 * number)
			break;
		/* The smaller one. A branch would have verifiers before 6.4 follow both ways of each round to the end.
		 */
		bytes = left + krie_less(RUNTIME_INTEGRITY_GROUP_BYTES, left) * (RUNTIME_INTEGRITY_GROUP_BYTES - left);
		asm volatile(
		    ""
		    : "+r"(bytes)); /* or clang would drop the mask, without which old verifiers see no bound */
		bytes &= RUNTIME_INTEGRITY_SUMMED - 1;
		sum = runtime_integrity_sum(sum, factor, KRIE_ADDRESS(group_info, groups, gid) + done, bytes);
	}
	return sum;
}

/* Of a map that nobody has written yet, 0. How many entries it has is written last, and so read first; it lies in front
 * of them or behind, and all five take 60 bytes. */
static __always_inline u64 runtime_integrity_sum_of_map(u64 factor, void *map)
{
	u64 entries = KRIE_READ(uid_gid_map, map, nr_extents);
	void *first = KRIE_ADDRESS(uid_gid_map, map, extent);
	u64 sum = runtime_integrity_sum(entries, factor, first, RUNTIME_INTEGRITY_SUMMED);

	sum = runtime_integrity_sum(sum, factor, first + RUNTIME_INTEGRITY_SUMMED, RUNTIME_INTEGRITY_SUMMED);
	return (sum | 1ULL << 32) * krie_truth(entries);
}

static __always_inline void runtime_integrity_sum_namespace(struct runtime_integrity_creds *creds, u64 factor,
							    struct user_namespace *namespace)
{
	const u64 begin = __builtin_offsetof(struct user_namespace, parent);

	creds->namespace = RUNTIME_INTEGRITY_KEPT(runtime_integrity_sum(
	    1, factor, (void *)namespace + begin, __builtin_offsetof(struct user_namespace, group) + 4 - begin));
	creds->maps[0] = RUNTIME_INTEGRITY_KEPT(
	    runtime_integrity_sum_of_map(factor, KRIE_ADDRESS(user_namespace, namespace, uid_map)));
	creds->maps[1] = RUNTIME_INTEGRITY_KEPT(
	    runtime_integrity_sum_of_map(factor, KRIE_ADDRESS(user_namespace, namespace, gid_map)));
}

/* A pointer out of the copy, which some kernels let lie on 4 bytes only. */
static __always_inline u64 runtime_integrity_noted_pointer(struct runtime_integrity_creds *creds, const u32 word)
{
	return creds->words[word] | (u64)creds->words[word + 1] << 32;
}

/* 1 where the initial namespace has this one above it: who is in this one has all rights there, and so, as the kernel
 * sees it, in all of the machine. */
static __always_inline u64 runtime_integrity_owns_the_machine(u64 namespace, u64 initial)
{
	u64 owns = 0;

#pragma unroll
	for (int i = 0; i < RUNTIME_INTEGRITY_NESTING; i++) {
		initial = (u64)KRIE_READ(user_namespace, (void *)initial, parent);
		owns |= krie_equal(initial, namespace);
	}
	return owns;
}

/* The address of the initial user namespace; 0 where it is not known. */
static __always_inline u64 runtime_integrity_initial(struct runtime_integrity_settings *settings)
{
	return settings ? *(volatile u64 *)&settings->initial_namespace : 0;
}

#define RUNTIME_INTEGRITY_NO_NEW_PRIVILEGES 1 /* PFA_NO_NEW_PRIVS is bit 0 of task->atomic_flags */

/* What a task has, or will have with these credentials. Programs run before the settings are told, of which the factor
 * is the last that is written and the first that is read: what was noted without it is not judged by. */
static __always_inline void runtime_integrity_read_creds(struct runtime_integrity_creds *creds,
							 struct task_struct *task, const struct cred *cred)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u64 factor = settings ? *(volatile u64 *)&settings->factor : 0;
	u64 namespace, initial = runtime_integrity_initial(settings);

	creds->noted = factor;
	creds->cred = (u64)cred;
	creds->told = creds->told_owns = creds->spare = 0;
	/* Not by zeros that the verifier knows: it would follow those to the end once more. */
	creds->groups = creds->namespace = creds->maps[0] = creds->maps[1] = creds->owns = krie_uncounted();
	creds->no_new_privileges = KRIE_READ(task_struct, task, atomic_flags) & RUNTIME_INTEGRITY_NO_NEW_PRIVILEGES;
	runtime_integrity_read_seccomp(&creds->seccomp, task);
	bpf_probe_read_kernel(creds->words, sizeof(creds->words), (void *)((u64)cred + RUNTIME_INTEGRITY_CRED_START));
	creds->groups = RUNTIME_INTEGRITY_KEPT(runtime_integrity_sum_of_groups(
	    factor, (void *)runtime_integrity_noted_pointer(
			creds, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, group_info)))));
	namespace =
	    runtime_integrity_noted_pointer(creds, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, user_ns)));
	if (initial && namespace != initial) {
		runtime_integrity_sum_namespace(creds, factor, (void *)namespace);
		creds->owns = runtime_integrity_owns_the_machine(namespace, initial);
	}
}

/* Nothing is judged by what was noted of this task. Not by deleting it, which fails where its bucket is busy. */
static __always_inline void runtime_integrity_unnote(u64 task)
{
	struct runtime_integrity_creds *noted = runtime_integrity_shadow.lookup(&task);

	if (noted)
		noted->noted = 0;
}

/* Where it cannot be noted, what was noted before is out of date. Returns whether it was. */
static __always_inline bool runtime_integrity_follow(struct task_struct *task, struct runtime_integrity_creds *creds)
{
	u64 key = (u64)task;
	u32 zero = 0;
	u64 *unfollowed;

	creds->start_time = krie_start_time(task);
	creds->noted = bpf_ktime_get_boot_ns() * krie_truth(creds->noted);
	if (!runtime_integrity_shadow.update(&key, creds))
		return true;
	runtime_integrity_unnote(key);
	unfollowed = runtime_integrity_unfollowed.lookup(&zero);
	if (unfollowed)
		__sync_fetch_and_add(unfollowed, 1);
	return false;
}

/* As it is now. Returns whether it was noted. */
static __always_inline bool runtime_integrity_note(struct task_struct *task, struct runtime_integrity_creds *creds)
{
	creds->seccomp.behind = runtime_integrity_behind(creds->seccomp.filter);
	return runtime_integrity_follow(task, creds);
}

/* 1 where these words of two threads' credentials differ. */
static __always_inline u64 runtime_integrity_other(struct runtime_integrity_creds *one,
						   struct runtime_integrity_creds *other, const u32 from,
						   const u32 words)
{
	u64 differs = 0;

#pragma unroll
	for (u32 i = from; i < from + words; i++)
		differs |= one->words[i] ^ other->words[i];
	return krie_truth(differs);
}

/* 1 where a map of ids is another one; 0 where it has been written only since. */
static __always_inline u64 runtime_integrity_other_map(u64 before, u64 now)
{
	return krie_truth(before) * krie_truth(before ^ now);
}

/* What differs of two threads' credentials. Users and groups alternate at the begin: uid, gid, suid, sgid, euid, egid,
 * fsuid, fsgid; then come securebits, and sets of capabilities. The blob of the security modules is each one's own. */
static __always_inline u32 runtime_integrity_differs(struct runtime_integrity_creds *one,
						     struct runtime_integrity_creds *other)
{
	const u32 securebits = RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, securebits));
	const u32 after_capabilities = RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, cap_ambient)) + 2;
	const u32 user = RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, user));
	u64 users = 0, groups = 0, keyrings = 0, charged, content, list, namespace;

#pragma unroll
	for (int i = 0; i < 8; i += 2) {
		users |= one->words[i] ^ other->words[i];
		groups |= one->words[i + 1] ^ other->words[i + 1];
	}
	list =
	    runtime_integrity_other(one, other, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, group_info)), 2);
	groups |= list;
	namespace =
	    runtime_integrity_other(one, other, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, user_ns)), 2);
#ifdef KRIE_HAS_cred__session_keyring
	keyrings = runtime_integrity_other(one, other,
					   RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, session_keyring)), 8);
#endif
	charged = runtime_integrity_other(one, other, user, 2);
#ifdef KRIE_HAS_cred__ucounts
	charged |=
	    runtime_integrity_other(one, other, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, ucounts)), 2);
#endif
	content = krie_truth(one->namespace ^ other->namespace) |
		  runtime_integrity_other_map(one->maps[0], other->maps[0]) |
		  runtime_integrity_other_map(one->maps[1], other->maps[1]);
	return (one->no_new_privileges & ~other->no_new_privileges) *
		   RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_NO_NEW_PRIVS |
	       krie_truth(users) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_USERS |
	       krie_truth(groups) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_GROUPS |
	       krie_truth(one->groups ^ other->groups) * (1 - list) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_GROUP_LIST |
	       namespace * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_USER_NAMESPACE |
	       content * (1 - namespace) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_NAMESPACE_CONTENT |
	       keyrings * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_KEYRINGS |
	       charged * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_CHARGED |
	       runtime_integrity_other(one, other, securebits, 1) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECUREBITS |
	       runtime_integrity_other(one, other, securebits + 1, after_capabilities - securebits - 1) *
		   RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_CAPABILITIES;
}

/* 1 where the same credentials have another blob of the security modules: it goes with them from when they are made. */
static __always_inline u64 runtime_integrity_other_blob(struct runtime_integrity_creds *before,
							struct runtime_integrity_creds *now)
{
#ifdef KRIE_HAS_cred__security
	return krie_equal(before->cred, now->cred) *
	       runtime_integrity_other(before, now, RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, security)),
				       2);
#else
	return 0;
#endif
}

/* Have it be the blob of these credentials. */
static __always_inline void runtime_integrity_take_blob(struct runtime_integrity_creds *creds, const struct cred *cred)
{
#ifdef KRIE_HAS_cred__security
	u64 blob = (u64)KRIE_READ(cred, cred, security);

	creds->words[RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, security))] = blob;
	creds->words[RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, security)) + 1] = blob >> 32;
#endif
}

/* Whether a map of ids was written since, or new privileges given up, both legally, and once; or seccomp got stricter.
 */
static __always_inline bool runtime_integrity_settled(struct runtime_integrity_creds *before,
						      struct runtime_integrity_creds *now)
{
	return krie_truth(before->maps[0] ^ now->maps[0]) | krie_truth(before->maps[1] ^ now->maps[1]) |
	       (before->no_new_privileges ^ now->no_new_privileges) |
	       runtime_integrity_stricter(&before->seccomp, &now->seccomp);
}
