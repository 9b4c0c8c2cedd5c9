/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Nobody's flood hides another's act: what a user may send of each kind, before the ring. Pasted behind the prelude;
 * krie/agent/budget.py fills the maps. What is held back was decided about all the same, and is counted.
 *
 * All is per CPU, so that nobody waits for anybody.
 */

KRIE_STATE("array", u32, struct krie_limits, krie_limits, 1);

/* Of the policy in force, by kind: KRIE_MATTERS and so on. */
KRIE_STATE("array", u32, u32, krie_importance, KRIE_SLOTS);

BPF_TABLE("lru_percpu_hash", struct krie_spender, struct krie_budget, krie_budgets, 4096);

/* Recent attempts beyond a budget, and until when equal ones are held back. */
struct krie_alike {
	u64 digest;
	u32 user;
	u32 slot;
};
BPF_TABLE("lru_hash", struct krie_alike, u64, krie_alikes, 16384);

/* When a record of each kind last found no room: what was to be sent before then may not have been. */
KRIE_FOUND("array", u32, u64, krie_no_room, KRIE_SLOTS);

static __always_inline struct krie_limits *krie_limits_now(void)
{
	u32 zero = 0;

	return krie_limits.lookup(&zero);
}

static __always_inline u64 krie_mixed(u64 digest, u64 word, u64 seed)
{
	digest = (digest ^ word) * seed;
	return digest ^ digest >> 32;
}

/* What is executed: by the file, too, since the memory of a struct file is used again by the second exec after it. */
static __always_inline u64 krie_mixed_image(u64 digest, struct krie_image *noted, u64 seed)
{
	if (!noted)
		return krie_mixed(digest, 1, seed);
	digest = krie_mixed(digest, noted->exe, seed);
	digest = krie_mixed(digest, noted->file.ino, seed);
	return krie_mixed(digest, noted->file.dev | (u64)noted->file.generation << 32, seed);
}

/* A record that was admitted found no room after all. */
static __always_inline void krie_found_no_room(u32 slot)
{
	u64 *when = krie_no_room.lookup(&slot);

	if (when)
		*when = bpf_ktime_get_boot_ns();
	krie_lost(slot);
}

/* A number for what the current thread is about to do: all inline fields, who it is, and what was decided. `size`: a
 * multiple of 8, constant. */
static __always_inline u64 krie_digest(const void *known, const u32 size, u64 decided)
{
	struct krie_limits *limits = krie_limits_now();
	struct task_struct *task = krie_current_btf();
	const struct cred *cred = KRIE_LOAD(task_struct, task, cred);
	u64 digest, comm[2] = {};
	struct krie_image *noted;
	u32 lost;

	if (!limits)
		return 0;
	bpf_probe_read_kernel(comm, sizeof(comm), KRIE_ADDRESS(task_struct, krie_current(), comm));
	noted = krie_current_image(&lost);
	digest = krie_mixed(limits->seed, krie_current_start_time(), limits->seed);
	digest = krie_mixed(digest, KRIE_LOAD(task_struct, task, tgid) | (u64)KRIE_LOAD(task_struct, task, pid) << 32,
			    limits->seed);
	digest = krie_mixed(digest, KRIE_LOAD(cred, cred, uid.val) | (u64)KRIE_LOAD(cred, cred, euid.val) << 32,
			    limits->seed);
	digest = krie_mixed(digest, KRIE_LOAD(cred, cred, gid.val) | (u64)lost << 32, limits->seed);
	digest = krie_mixed_image(digest, noted, limits->seed);
	digest = krie_mixed(digest, comm[0], limits->seed);
	digest = krie_mixed(digest, comm[1], limits->seed);
	digest = krie_mixed(digest, decided, limits->seed);
#pragma unroll
	for (u32 i = 0; i < size / 8; i++)
		digest = krie_mixed(digest, ((const u64 *)known)[i], limits->seed);
	return digest;
}

/* The same of what concerns another process, of which policies see what it executed: which one it is, and what it runs
 * now. It may execute another program between two attempts that are equal otherwise. For `Event.ALIKE`. Not by what was
 * noted of it: several programs have no room left on their stack for such a key. Whoever puts another file in place of
 * its executable only tells attempts apart. */
static __always_inline u64 krie_digest_with(u64 digest, struct task_struct *other)
{
	struct krie_limits *limits = krie_limits_now();
	struct mm_struct *mm = KRIE_READ(task_struct, other, mm);
	struct file *exe = KRIE_READ(mm_struct, mm, exe_file);
	struct inode *inode = KRIE_READ(file, exe, f_inode);

	if (!limits)
		return 0;
	digest = krie_mixed(digest, krie_start_time(other), limits->seed);
	digest = krie_mixed(digest, (u64)mm, limits->seed);
	digest = krie_mixed(digest, (u64)exe, limits->seed);
	digest = krie_mixed(digest, (u64)inode, limits->seed);
	return krie_mixed(digest, KRIE_READ(inode, inode, i_ino), limits->seed);
}

/* Who pays: the user, or the one in whose name it is another one in a user namespace. Where that is root, as with
 * containers whose users are mapped, the namespace itself does, by its number, which is beyond users' ids: what runs
 * there is not root, and would spend what root has. It is the outermost one, however many are made in it. In a
 * container of root's without one, which may take the id of any user and make user namespaces as any, all of the
 * container do: by the number of its outermost PID namespace. Numbers of namespaces of all kinds are different. */
static __always_inline u32 krie_payer(void)
{
	const struct cred *cred = KRIE_LOAD(task_struct, krie_current_btf(), cred);
	struct user_namespace *ns = KRIE_LOAD(cred, cred, user_ns);
	struct user_namespace *outermost = NULL;
	u32 user = KRIE_LOAD(cred, cred, uid.val);
	u64 container;

#pragma clang loop unroll(disable)
	for (u64 i = krie_uncounted(); i < 33 && KRIE_GOES_ON; i++) { /* 32 can lie in each other */
		if (!KRIE_LOAD(user_namespace, ns, level))
			break;
		outermost = ns;
		ns = KRIE_LOAD(user_namespace, ns, parent);
	}
	if (outermost) {
		user = KRIE_LOAD(user_namespace, outermost, owner.val);
		if (!user)
			user = KRIE_LOAD(user_namespace, outermost, ns.inum);
	}
	krie_forget(&user, sizeof(user));
	container = krie_container();
	return container + user * (1 - krie_truth(container));
}

/* Whether one more is due. A bucket that fills with one every `interval`, as the time when the next one is due: that
 * many at once are let through as fit into `burst`. */
static __always_inline bool krie_afford(u64 *next, u64 now, u64 interval, u64 burst)
{
	u64 due = *next;

	if (due + burst < now)
		due = now - burst;
	if (due > now)
		return false;
	*next = due + interval;
	return true;
}

/* Bytes of the ring that the agent has not read yet: bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA). BCC 0.26 has no way to
 * call it, but makes a call of the name below out of ringbuf_reserve(), with the ring and its argument. */
static __always_inline u64 krie_unread_bytes(void)
{
	u64 (*bpf_ringbuf_reserve)(void *ring, u64 what, u64 none) = (void *)134;

	return (u64)krie_ring.ringbuf_reserve(BPF_RB_AVAIL_DATA);
}

/* Whether a record of the process table's may be sent: in the common part of the ring. No budget holds one back, since
 * each costs whoever causes it a process. */
static __always_inline bool krie_admit_background(u32 slot)
{
	struct krie_limits *limits = krie_limits_now();

	if (!limits || !limits->common_bytes || krie_unread_bytes() < limits->common_bytes)
		return true;
	krie_lost(slot);
	return false;
}

/* What becomes of a record. */
#define KRIE_SENT 0
#define KRIE_ALIKE 1 /* not sent, as an equal one was a moment before */
#define KRIE_HELD 2 /* nor that */

/* Of an attempt with this digest, 0 where none is known, and whether anything was decided about it. */
static __always_inline u32 krie_admit(u32 slot, u64 digest, u64 decided)
{
	struct krie_count *count = krie_counts.lookup(&slot);
	u32 *importance = krie_importance.lookup(&slot);
	struct krie_limits *limits = krie_limits_now();
	u64 *no_room = krie_no_room.lookup(&slot);
	struct krie_spender spender = { .what = slot * 2 + decided };
	struct krie_alike alike = { .slot = slot };
	struct krie_budget *budget;
	u64 now = bpf_ktime_get_boot_ns();
	u64 until = now, *before;

	if (!limits || !limits->interval || !importance || !count)
		return KRIE_SENT;
	alike.digest = *importance & KRIE_UNLIKE ? 0 : digest;
	spender.user = krie_payer();
	budget = krie_budgets.lookup(&spender);
	if (!budget) {
		struct krie_budget none = {};

		krie_budgets.update(&spender, &none);
		budget = krie_budgets.lookup(&spender);
		if (!budget)
			return KRIE_SENT;
	}
	if (krie_afford(&budget->next, now, limits->interval, limits->burst)) {
		if (*importance & KRIE_MATTERS || decided || krie_unread_bytes() < limits->common_bytes)
			return KRIE_SENT;
		krie_lost(slot);
		return KRIE_HELD;
	}
	alike.user = spender.user;
	if (alike.digest) {
		before = krie_alikes.lookup(&alike);
		/* Where one found no room since, it may have been that one, of which nobody knows. */
		if (before && *before > now && no_room && *before - limits->repeat > *no_room) {
			__sync_fetch_and_add(&count->attempts, 1);
			__sync_fetch_and_add(&count->alike, 1);
			budget->held += 1;
			return KRIE_ALIKE;
		}
	}
	if (krie_afford(&budget->other, now, limits->other_interval, limits->other_burst) &&
	    krie_unread_bytes() < limits->common_bytes) {
		until = now + limits->repeat;
		if (alike.digest)
			krie_alikes.update(&alike, &until);
		return KRIE_SENT;
	}
	__sync_fetch_and_add(&count->attempts, 1);
	__sync_fetch_and_add(&count->over, 1);
	budget->held += 1;
	return KRIE_HELD;
}
