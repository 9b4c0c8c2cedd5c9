/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What credentials gain that a task is given, and whether it may gain that: in the system call that it is in, and by
 * the credentials that it has. The kernel asks for the right in the same system call, from the same credentials, before
 * it gets here; where nobody asked, or the answer was forged, the right is still not there.
 *
 * Nothing is kept from a program at the kernel's own checks: such programs are left out now and then (another program
 * runs on this CPU, a probe is silenced), and then who was asked would look like who was not.
 */

#define CFI_NO_CALL (~0U) /* KRIE_NO_SYSCALL, as `number` has it */
#define CFI_CAP_SETUID 7 /* include/uapi/linux/capability.h */

/* By system call: bits of `gain` that credentials may have that are committed in it, and which right it takes
 * (CFI_OF_*). In others they may gain nothing. */
KRIE_STATE("hash", u32, u32, cfi_paths, 256);

static __always_inline u64 cfi_capabilities(void *set)
{
	u64 bits = 0;

	bpf_probe_read_kernel(&bits, sizeof(bits), set);
	return bits;
}

static __always_inline u64 cfi_permitted(struct cred *cred)
{
	return cfi_capabilities(KRIE_ADDRESS(cred, cred, cap_permitted));
}

/* What the new credentials have that the task's own have not. */
static __always_inline u32 cfi_gain(struct cred *new)
{
	struct cred *old = cfi_own();
	u32 before = KRIE_READ(cred, old, euid.val), after = KRIE_READ(cred, new, euid.val);
	u64 uid = krie_truth((before ^ after) | (KRIE_READ(cred, old, uid.val) ^ KRIE_READ(cred, new, uid.val)) |
			     (KRIE_READ(cred, old, suid.val) ^ KRIE_READ(cred, new, suid.val)) |
			     (KRIE_READ(cred, old, fsuid.val) ^ KRIE_READ(cred, new, fsuid.val)));
	u64 namespace = krie_truth((u64)KRIE_READ(cred, old, user_ns) ^ (u64)KRIE_READ(cred, new, user_ns));

	return krie_truth(before) * (1 - krie_truth(after)) * CFI_CALLER_GAIN_EUID0 |
	       krie_truth(cfi_permitted(new) & ~cfi_permitted(old)) * CFI_CALLER_GAIN_CAPS |
	       namespace * CFI_CALLER_GAIN_USERNS | uid * CFI_CALLER_GAIN_UID;
}

/* 1 where the kernel is about to start a program by itself: begin_new_exec() is called by a thread that has left the
 * kernel's own (it has memory, and no PF_KTHREAD any more), and never was in user mode. Nor was a worker of io_uring or
 * vhost, but that is a thread of whose memory it has. */
static __always_inline u64 cfi_starts_program(void)
{
	struct task_struct *task = krie_current();

	return krie_truth((u64)KRIE_READ(task_struct, task, mm)) *
	       (1 - krie_truth(KRIE_READ(task_struct, task, flags) & KRIE_PF_KTHREAD)) *
	       krie_equal(KRIE_READ(task_struct, task, pid), KRIE_READ(task_struct, task, tgid)) *
	       (1 - krie_in_user_mode(krie_registers_now()));
}

/* The number of the system call that the task is in, with CFI_COMPAT; CFI_OF_KERNEL where the kernel starts a program;
 * CFI_NO_CALL in other threads of the kernel and in workers, which may give nothing. */
static __always_inline u32 cfi_system_call(void)
{
	struct krie_syscall call = krie_syscall_now();

	return ((u32)call.number | call.compat * CFI_COMPAT * krie_truth(~call.number)) -
	       cfi_starts_program() * (CFI_NO_CALL - CFI_OF_KERNEL);
}

/* Whether a user is the real, the effective or the saved one of credentials. */
static __always_inline u64 cfi_has_user(struct cred *cred, u32 uid)
{
	return krie_equal(KRIE_READ(cred, cred, uid.val), uid) | krie_equal(KRIE_READ(cred, cred, euid.val), uid) |
	       krie_equal(KRIE_READ(cred, cred, suid.val), uid);
}

/* setuid(2) and its like: CAP_SETUID, or users that the task has already. */
static __always_inline u64 cfi_may_be_users(struct cred *old, struct cred *new)
{
	u32 fsuid = KRIE_READ(cred, new, fsuid.val);
	u64 capable = cfi_effective(old) >> CFI_CAP_SETUID & 1;

	return capable |
	       (cfi_has_user(old, KRIE_READ(cred, new, uid.val)) & cfi_has_user(old, KRIE_READ(cred, new, euid.val)) &
		cfi_has_user(old, KRIE_READ(cred, new, suid.val)) &
		(cfi_has_user(old, fsuid) | krie_equal(KRIE_READ(cred, old, fsuid.val), fsuid)));
}

/* unshare(2) and setns(2): capabilities come with another user namespace only, and that is one that the task governs:
 * it has made it, or has CAP_SYS_ADMIN there. */
static __always_inline u64 cfi_may_enter(struct cred *old, struct cred *new, u32 gain)
{
	return krie_truth(gain & CFI_CALLER_GAIN_USERNS) & cfi_governs(old, (void *)KRIE_READ(cred, new, user_ns));
}

/* execve(2): a program never changes the real user, nor gives a capability that is neither in the task's bounding set
 * nor to be inherited. Whether it is set-uid, or has capabilities, cannot be told here. */
static __always_inline u64 cfi_may_be_of_program(struct cred *old, struct cred *new)
{
	u64 bound = cfi_capabilities(KRIE_ADDRESS(cred, old, cap_bset)) |
		    cfi_capabilities(KRIE_ADDRESS(cred, old, cap_inheritable)) | cfi_permitted(old);

	return krie_equal(KRIE_READ(cred, old, uid.val), KRIE_READ(cred, new, uid.val)) *
	       (1 - krie_truth(cfi_permitted(new) & ~bound));
}

/* The lock that credentials do not pass that gain this in this system call; 0 where they may.
 *
 * What rings of io_uring have a thread do on its way out of a call bears that call's number. The rights to users and to
 * namespaces are judged in full, so that nobody gains by such a number what it might not gain by a call of its own.
 * What a program may give is not: it counts only while the call surely runs. exec ends all rings before it commits (it
 * cancels what they do and frees `io_uring`), so that who has had some, and a tracer that exchanges the result
 * register, which tells whether the call is over, are in nobody's way. */
static __always_inline u32 cfi_wrong(struct cred *new, u32 gain, u32 number)
{
	u32 *row = cfi_paths.lookup(&number);
	struct cred *old = cfi_own();
	u64 right;

	if (!row || gain & ~*row || krie_truth(*row & CFI_OF_PROGRAM) & krie_may_be_over())
		return CFI_CALLER_LOCK_PATH;
	right = krie_truth(*row & CFI_OF_USERS) & cfi_may_be_users(old, new);
	right |= krie_truth(*row & CFI_OF_NAMESPACE) & cfi_may_enter(old, new, gain);
	right |= krie_truth(*row & CFI_OF_PROGRAM) & cfi_may_be_of_program(old, new);
	return (1 - right) * CFI_CALLER_LOCK_RIGHT;
}
