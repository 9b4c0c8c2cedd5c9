/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Whether a thread must act by its own credentials now, so that others are an attack. The kernel exchanges the ones
 * that a thread acts by (override_creds()) for a while where it works in somebody's name: overlayfs and FUSE as who
 * mounted or opened, io_uring as whoever its user registered, nfsd (also for a client on the same machine) and
 * cachefiles as configured, firmware and core dumps as themselves. None of that happens in the calls named in
 * cred_calls.py before these have come to where we look, but on the mounts that overlayfs keeps to itself, and when a
 * process that dies dumps its memory on its way out of any call.
 */

#define RUNTIME_INTEGRITY_PF_EXITING 0x4 /* include/linux/sched.h */
#define RUNTIME_INTEGRITY_DIES 0xc /* SIGNAL_GROUP_EXIT and, until 2f824d4d197e, SIGNAL_GROUP_COREDUMP */
#define RUNTIME_INTEGRITY_ERRORS ((u64) - 4096) /* MNT_NS_INTERNAL is an error as a pointer */

/* The bits of a set of system calls, see cred_calls.py, of which `call` is one. By arithmetic: the verifier would
 * follow each way. */
#define RUNTIME_INTEGRITY_PART(set, word) krie_equal(call >> 6, word) * RUNTIME_INTEGRITY_CALLS_##set##_##word
#define RUNTIME_INTEGRITY_CALLS(set)                                                                                   \
	(RUNTIME_INTEGRITY_PART(set, 0) | RUNTIME_INTEGRITY_PART(set, 1) | RUNTIME_INTEGRITY_PART(set, 2) |            \
	 RUNTIME_INTEGRITY_PART(set, 3) | RUNTIME_INTEGRITY_PART(set, 4) | RUNTIME_INTEGRITY_PART(set, 5) |            \
	 RUNTIME_INTEGRITY_PART(set, 6) | RUNTIME_INTEGRITY_PART(set, 7))

/* Whether the thread acts by other credentials than its own, for whatever reason. */
static __always_inline bool runtime_integrity_acts_by_others(void)
{
	struct task_struct *task = krie_current_btf();

	return (u64)KRIE_LOAD(task_struct, task, cred) != (u64)KRIE_LOAD(task_struct, task, real_cred);
}

/* 1 where it does, and must not in the system call that it is surely in. Who has rings of io_uring is in none, nor are
 * their workers: what these ask for is done by whomever they are registered as. */
static __always_inline u64 runtime_integrity_in_own_name(void)
{
	const u32 for_others = RUNTIME_INTEGRITY_PF_EXITING | KRIE_PF_KTHREAD;
	struct task_struct *task = krie_current();
	struct signal_struct *group = KRIE_READ(task_struct, task, signal);
	u64 call = krie_syscall_number_surely_now();
	u64 set = RUNTIME_INTEGRITY_CALLS(NAMES), exempt;

	exempt = krie_compat(task) | (KRIE_READ(task_struct, task, flags) & for_others) |
		 (KRIE_READ(signal_struct, group, flags) & RUNTIME_INTEGRITY_DIES);
	return (set >> (call & 63) & 1) * (1 - krie_truth(exempt));
}

/* 1 where a mount is in anybody's namespace, and not kept by a file system for itself. */
static __always_inline u64 runtime_integrity_is_users_mount(struct vfsmount *vfs)
{
	struct mount *mount = (void *)vfs - __builtin_offsetof(struct mount, mnt);

	return krie_less((u64)KRIE_READ(mount, mount, mnt_ns), RUNTIME_INTEGRITY_ERRORS);
}
