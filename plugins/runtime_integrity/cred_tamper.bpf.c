/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Credentials that changed without the kernel's own way of changing them. What each thread has is noted when it is born
 * and at every commit_creds(), the one function by which a thread changes its own; it is compared where credentials are
 * used for what matters, and before new ones are made of them: what was tampered with must not be noted as legal because
 * something legal followed.
 *
 * A struct cred is never written once a thread has it: the kernel makes a new one. Compared is the objective one
 * (real_cred): the subjective one is another for a while wherever the kernel works in somebody's name. What is derived
 * meanwhile from that other one is never noted: commit_creds() insists on both being the same.
 */

#define RUNTIME_INTEGRITY_CRED_START __builtin_offsetof(struct cred, uid)
/* From the first user id to the last set of capabilities. */
#define RUNTIME_INTEGRITY_CRED_BYTES (__builtin_offsetof(struct cred, cap_ambient) + 8 - RUNTIME_INTEGRITY_CRED_START)
#define RUNTIME_INTEGRITY_CRED_WORDS (RUNTIME_INTEGRITY_CRED_BYTES / 4)

#define RUNTIME_INTEGRITY_PF_EXITING 0x4 /* include/linux/sched.h */
#define RUNTIME_INTEGRITY_PF_IO_WORKER 0x10 /* since 3bfe6106693b; before, none that a new task has */

struct runtime_integrity_creds {
	u64 start_time; /* of the thread: the memory of a task is used again */
	u64 noted; /* when, in ns since boot; of what is older than runtime_integrity_followed(), nothing is judged */
	u64 cred; /* addresses of the credentials, and of what they refer to */
	u64 user_ns;
	u64 group_info;
	u64 keyrings[4]; /* of the session, the process, the thread, and of a request */
	u32 words[RUNTIME_INTEGRITY_CRED_WORDS];
} __attribute__((aligned(8)));

/* By the address of the task, which it keeps when an exec gives it another number. */
BPF_HASH(runtime_integrity_shadow, u64, struct runtime_integrity_creds, RUNTIME_INTEGRITY_CRED_THREADS);
/* Threads that there was no room for, since the start. */
BPF_ARRAY(runtime_integrity_unfollowed, u64, 1);

static __always_inline void runtime_integrity_read_creds(struct runtime_integrity_creds *creds, const struct cred *cred)
{
	creds->cred = (u64)cred;
	creds->user_ns = (u64)KRIE_READ(cred, cred, user_ns);
	creds->group_info = (u64)KRIE_READ(cred, cred, group_info);
#ifdef KRIE_HAS_cred__session_keyring
	bpf_probe_read_kernel(creds->keyrings, sizeof(creds->keyrings),
			      (void *)((u64)cred + __builtin_offsetof(struct cred, session_keyring)));
#endif
	bpf_probe_read_kernel(creds->words, sizeof(creds->words), (void *)((u64)cred + RUNTIME_INTEGRITY_CRED_START));
}

static __always_inline void runtime_integrity_follow(struct task_struct *task, struct runtime_integrity_creds *creds)
{
	u64 key = (u64)task;
	u32 zero = 0;
	u64 *unfollowed;

	creds->start_time = KRIE_READ(task_struct, task, start_boottime);
	creds->noted = bpf_ktime_get_boot_ns();
	if (!runtime_integrity_shadow.update(&key, creds))
		return;
	unfollowed = runtime_integrity_unfollowed.lookup(&zero);
	if (unfollowed)
		__sync_fetch_and_add(unfollowed, 1);
}

/* What differs of two threads' credentials, by the place in struct cred: uid, gid, suid, sgid, euid, egid, fsuid, fsgid,
 * securebits, and sets of capabilities; then what they refer to. */
static __always_inline u32 runtime_integrity_differs(struct runtime_integrity_creds *one,
						     struct runtime_integrity_creds *other)
{
	u64 users = 0, groups = one->group_info ^ other->group_info, capabilities = 0, keyrings = 0;

#pragma unroll
	for (int i = 0; i < 8; i += 2) {
		users |= one->words[i] ^ other->words[i];
		groups |= one->words[i + 1] ^ other->words[i + 1];
	}
#pragma unroll
	for (int i = 9; i < RUNTIME_INTEGRITY_CRED_WORDS; i++)
		capabilities |= one->words[i] ^ other->words[i];
#pragma unroll
	for (int i = 0; i < 4; i++)
		keyrings |= one->keyrings[i] ^ other->keyrings[i];
	return krie_truth(users) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_USERS |
	       krie_truth(groups) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_GROUPS |
	       krie_truth(one->user_ns ^ other->user_ns) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_USER_NAMESPACE |
	       krie_truth(keyrings) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_KEYRINGS |
	       krie_truth(one->words[8] ^ other->words[8]) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECUREBITS |
	       krie_truth(capabilities) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_CAPABILITIES;
}

/* Whether what was noted is the current thread's, and nothing has passed unseen since. */
static __always_inline bool runtime_integrity_holds(struct runtime_integrity_creds *noted)
{
	return noted && noted->noted >= runtime_integrity_followed() &&
	       noted->start_time == KRIE_LOAD(task_struct, krie_current_btf(), start_boottime);
}

#define RUNTIME_INTEGRITY_CALL 0xe8

/* Whether commit_creds() calls nobody first, and so no program either: of what was legal meanwhile, nothing is known. */
static __always_inline bool runtime_integrity_commits_unseen(void)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u32 start[2] = {};

	if (!settings || !settings->commit_creds)
		return false;
	if (bpf_probe_read_kernel(start, sizeof(start), (void *)settings->commit_creds))
		return false;
	return (u8)start[0] != RUNTIME_INTEGRITY_CALL && (u8)start[1] != RUNTIME_INTEGRITY_CALL; /* behind an endbr */
}

/* Whether the current thread has other credentials than it was given legally; `error` is what the operation shall return.
 * `now` is the caller's, and zeros: the stack is too small for two where he has one himself. */
static __always_inline int runtime_integrity_compare_in(struct runtime_integrity_creds *now, u8 operation,
							const u32 can)
{
	struct task_struct *task = krie_current();
	u64 key = (u64)task;
	struct runtime_integrity_creds *before = runtime_integrity_shadow.lookup(&key);
	struct runtime_integrity_cred_tamper_inline known = { .operation = operation };
	struct runtime_integrity_cred_tamper *record;
	struct krie_answer answer;
	u64 changed;
	int error = 0;

	runtime_integrity_read_creds(now, KRIE_READ(task_struct, task, real_cred));
	/* Older than the agent, or than the time since when all changes were seen: what it has now counts as its own. */
	if (!runtime_integrity_holds(before)) {
		if (!(KRIE_READ(task_struct, task, flags) & RUNTIME_INTEGRITY_PF_EXITING))
			runtime_integrity_follow(task, now);
		return 0;
	}
	changed = runtime_integrity_differs(before, now) |
		  krie_truth(before->cred ^ now->cred) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_POINTER;
	/* The kernel execs and changes users in nobody's name: commit_creds() itself insists on that. */
	if (operation != RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_WRITE &&
	    operation != RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_PREPARE)
		changed |= krie_truth(now->cred ^ (u64)KRIE_READ(task_struct, task, cred)) *
			   RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SUBJECTIVE;
	if (!changed)
		return 0;
	if (runtime_integrity_commits_unseen()) {
		runtime_integrity_blind_until(bpf_ktime_get_boot_ns());
		runtime_integrity_follow(task, now);
		return 0;
	}
	known.changed = changed;
	known.uid_before = before->words[0];
	known.euid_before = before->words[4];
	known.euid_now = now->words[4];
	runtime_integrity_follow(task, now); /* told once */
	answer = krie_decide_runtime_integrity_cred_tamper(&known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_runtime_integrity_cred_tamper();
	if (!record)
		return error;
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_cred_tamper(record, &known);
	record->cred = now->cred;
	krie_submit_runtime_integrity_cred_tamper(record);
	return error;
}

static __always_inline int runtime_integrity_compare(u8 operation, const u32 can)
{
	struct runtime_integrity_creds now = {};

	return runtime_integrity_compare_in(&now, operation, can);
}

/* commit_creds(new): the current thread is about to have `new`. Two programs do this: the kernel leaves a program out where
 * it was preempted on this CPU in the same one, and one run that is missed would make an attack of what was none. Both are
 * missed only where two other threads were preempted, one in each. The second one to run has nothing left to do.
 *
 * What the thread has until now is compared once more, whoever made `new`: keyctl's KEYCTL_SESSION_TO_PARENT lets a child. */
static __always_inline int runtime_integrity_commit(const struct cred *new)
{
	u64 task = (u64)krie_current();
	struct runtime_integrity_creds creds = {};
	struct runtime_integrity_creds *noted;

	if (!krie_enter())
		return 0;
	noted = runtime_integrity_shadow.lookup(&task);
	if (runtime_integrity_holds(noted)) {
		if (noted->cred == (u64)new)
			return 0;
		runtime_integrity_compare_in(&creds, RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_COMMIT, KRIE_CAN_KILL);
	}
	runtime_integrity_read_creds(&creds, new);
	runtime_integrity_follow(krie_current(), &creds);
	return 0;
}

int runtime_integrity_commit_fentry(u64 *ctx)
{
	return runtime_integrity_commit((const struct cred *)ctx[0]);
}

int runtime_integrity_commit_again(u64 *ctx)
{
	return runtime_integrity_commit((const struct cred *)ctx[0]);
}

/* security_prepare_creds(new, old, flags): credentials are copied, to be changed or for a child. All that changes a thread's
 * own begins here, and so do fork and exec; who is refused is told that there is no memory. */
int runtime_integrity_cred_prepare_hook(u64 *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_PREPARE,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* security_bprm_check(bprm) */
int runtime_integrity_cred_exec_hook(u64 *ctx)
{
	if (krie_own_child() || !krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_EXEC, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* security_task_fix_setuid(new, old, flags) */
int runtime_integrity_cred_setuid_hook(u64 *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_SETUID,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* mnt_get_write_access(mount): a file is about to be opened for writing, made, renamed, removed or changed. Nothing runs
 * where files are only read: a program at security_file_open(), even an empty one, makes each open 2 % dearer. */
static __always_inline int runtime_integrity_cred_write(void)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_WRITE, KRIE_CAN_KILL);
}

int runtime_integrity_cred_write_access(u64 *ctx)
{
	return runtime_integrity_cred_write();
}

/* __mnt_want_write(mount), until 3e15dcf77b23 */
int runtime_integrity_cred_want_write(u64 *ctx)
{
	return runtime_integrity_cred_write();
}

/* sched_wakeup_new(child): its maker is about to let it run. Not sched_process_fork(), which says nothing of io_uring's
 * workers (since 3bfe6106693b). Noted is what the child has, which may be other than its maker's own, as in a new user
 * namespace, or where io_uring makes a worker in somebody else's name; but of a maker whose credentials were tampered with,
 * the child keeps what was legal, so that its own first operation tells. So does that of a maker which acts by other
 * credentials than its own: in nobody's name anything but a worker of io_uring is made. */
int runtime_integrity_cred_born(struct bpf_raw_tracepoint_args *ctx)
{
	u64 maker = (u64)krie_current();
	struct task_struct *child = (struct task_struct *)ctx->args[0];
	const struct cred *cred = KRIE_READ(task_struct, child, real_cred);
	struct runtime_integrity_creds creds = {};
	struct runtime_integrity_creds now = {};
	struct runtime_integrity_creds *legal;
	u64 acts_by;
	u32 worker;

	if (!krie_enter())
		return 0;
	runtime_integrity_read_creds(&creds, cred);
	legal = runtime_integrity_shadow.lookup(&maker);
	if (runtime_integrity_holds(legal) && runtime_integrity_differs(legal, &creds)) {
		runtime_integrity_read_creds(&now, KRIE_READ(task_struct, krie_current(), real_cred));
		acts_by = (u64)KRIE_READ(task_struct, krie_current(), cred);
		worker = KRIE_READ(task_struct, child, flags) & RUNTIME_INTEGRITY_PF_IO_WORKER;
		if (runtime_integrity_differs(legal, &now) || (!worker && acts_by != now.cred)) {
			creds = *legal;
			creds.cred = (u64)cred;
		}
	}
	runtime_integrity_follow(child, &creds);
	return 0;
}

/* sched_process_exit(task), of every thread */
int runtime_integrity_cred_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = (u64)krie_current();

	krie_own_child();
	runtime_integrity_shadow.delete(&task);
	return 0;
}
