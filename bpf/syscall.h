/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * System calls: which one, with which arguments, by a 64-bit or a 32-bit caller. Included behind krie.h.
 */
#ifndef KRIE_SYSCALL_H
#define KRIE_SYSCALL_H

/* x86 system call numbers carry this bit for x32 callers. */
#define KRIE_X32_BIT 0x40000000
#define KRIE_TS_COMPAT 0x0002

/* Whether the current system call came by a 32-bit entry. Only true within a system call. */
static __always_inline __u64 krie_compat(struct task_struct *task)
{
	return krie_truth(KRIE_READ(task_struct, task, thread_info.status) & KRIE_TS_COMPAT);
}

/* Number and arguments of a system call. */
struct krie_syscall {
	__u64 number, first, second, third, fourth;
	__u64 compat; /* 1 or 0 */
};

/* One of two registers, by arithmetic: two ways would be followed by the verifier up to the program's end. */
static __always_inline __u64 krie_register(void *regs, __u64 native, __u64 ia32, __u64 compat)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), regs + native + (ia32 - native) * compat);
	return value & (~0ULL >> (32 * compat));
}

static __always_inline struct krie_syscall krie_syscall_in(void *regs, __u64 number)
{
	__u64 compat = krie_compat(krie_current());
	struct krie_syscall call = {
		/* the registers differ, and so do the numbers */
		.number = (__u32)number & ~KRIE_X32_BIT, /* its lower half only, which is what the kernel takes */
		.compat = compat,
		.first = krie_register(regs, __builtin_offsetof(struct pt_regs, di),
				       __builtin_offsetof(struct pt_regs, bx), compat),
		.second = krie_register(regs, __builtin_offsetof(struct pt_regs, si),
					__builtin_offsetof(struct pt_regs, cx), compat),
		.third = krie_register(regs, __builtin_offsetof(struct pt_regs, dx),
				       __builtin_offsetof(struct pt_regs, dx), compat),
		.fourth = krie_register(regs, __builtin_offsetof(struct pt_regs, r10),
					__builtin_offsetof(struct pt_regs, si), compat),
	};

	return call;
}

/* As a program for one system call finds it, or any raw tracepoint at sys_enter(regs, number). */
static __always_inline struct krie_syscall krie_syscall_of(struct bpf_raw_tracepoint_args *ctx)
{
	return krie_syscall_in((void *)ctx->args[0], ctx->args[1]);
}

#define KRIE_STACK_BYTES 16384 /* of a kernel stack; twice as much under KASAN, where this finds nothing */
#define KRIE_NO_SYSCALL (~0ULL)
#define KRIE_ENOSYS 38 /* include/uapi/asm-generic/errno.h */

/* 1 where these are registers of user mode: of privilege level 3, which is the low two bits of its segments, as
 * user_mode() of the kernel has it. Not by the segments' numbers: with modify_ldt(2) a process makes others for itself.
 * Both are looked at, since where registers lie 16 bytes lower than assumed, the place of `cs` holds a stack pointer of
 * the caller's choice, and that of `ss` nothing. */
static __always_inline __u64 krie_in_user_mode(struct pt_regs *regs)
{
	return krie_equal(KRIE_READ(pt_regs, regs, cs) & KRIE_READ(pt_regs, regs, ss) & 3, 3);
}

static __always_inline struct pt_regs *krie_registers_now(void)
{
	__u64 end = (__u64)KRIE_READ(task_struct, krie_current(), stack) + KRIE_STACK_BYTES;
	struct pt_regs *regs = (void *)(end - sizeof(struct pt_regs));

	/* By arithmetic, as elsewhere: two ways would be followed to the end. */
	return (void *)regs - 16 * (1 - krie_in_user_mode(regs));
}

/* All ones where the registers are not those of a system call that this task made: kernel threads have none, nor has
 * what the kernel is about to start. Workers of io_uring and vhost have a copy of their maker's, of which the kernel
 * clears `ip` (50b7b6f29de3; before, all). Flags do not tell them: PF_IO_WORKER was moved, and others have its bits. */
static __always_inline __u64 krie_no_syscall(struct pt_regs *regs)
{
	return (krie_in_user_mode(regs) & krie_truth(KRIE_READ(pt_regs, regs, ip))) - 1;
}

/* The system call that the current task is in, for programs that run deeper in the kernel. Its registers lie at the end
 * of the stack, which kernels with FRED leave 16 bytes of empty (TOP_OF_KERNEL_STACK_PADDING). The number is
 * KRIE_NO_SYSCALL where there are none. Not for what lets something pass because of the number: see below. */
static __always_inline struct krie_syscall krie_syscall_now(void)
{
	struct pt_regs *regs = krie_registers_now();
	struct krie_syscall call;

	call = krie_syscall_in(regs, KRIE_READ(pt_regs, regs, orig_ax));
	call.number |= krie_no_syscall(regs);
	return call;
}

/* All ones where the current task may be doing something else than the system call whose number it has: a thread with
 * rings of io_uring does what these ask for on its way out of any call, so that it opens files in read(2), say. Once it
 * has used one, it counts as having some until exec. */
static __always_inline __u64 krie_elsewhere(void)
{
#ifdef KRIE_HAS_task_struct__io_uring
	return 0 - krie_truth((__u64)KRIE_READ(task_struct, krie_current(), io_uring));
#else
	return 0;
#endif
}

/* As krie_syscall_now(), but KRIE_NO_SYSCALL also where that may not be what the task is doing. */
static __always_inline struct krie_syscall krie_syscall_surely_now(void)
{
	struct krie_syscall call = krie_syscall_now();

	call.number |= krie_elsewhere();
	return call;
}

/* Its number alone. */
static __always_inline __u64 krie_syscall_number_surely_now(void)
{
	struct pt_regs *regs = krie_registers_now();

	return ((__u32)KRIE_READ(pt_regs, regs, orig_ax) & ~KRIE_X32_BIT) | krie_no_syscall(regs) | krie_elsewhere();
}

/* 1 where the current system call may be over, and the task be doing something else on its way out. The kernel puts
 * -ENOSYS in place of a call's answer when it begins; a tracer may put something else there. A call that fails by that
 * very error looks as if it were not over: file systems in user space can make some do so. */
static __always_inline __u64 krie_may_be_over(void)
{
	__u64 answer = KRIE_READ(pt_regs, krie_registers_now(), ax);

	return (krie_elsewhere() & 1) * (1 - krie_equal((__u32)answer, (__u32)-KRIE_ENOSYS));
}

#endif
