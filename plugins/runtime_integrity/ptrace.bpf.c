/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Control over other processes. One small function per attach type turns what it is given into the arguments of one
 * common function.
 */

#define RUNTIME_INTEGRITY_PTRACE_MODE_ATTACH 0x02 /* include/linux/ptrace.h */
#define RUNTIME_INTEGRITY_PTRACE_MODE_FSCREDS 0x08

/* Whether leave was asked before, or is not needed: the caller's own threads, and what it traces already. */
static __always_inline bool runtime_integrity_controls(struct task_struct *target)
{
	struct task_struct *tracer = KRIE_READ(task_struct, target, parent);
	u32 tgid = KRIE_READ(task_struct, krie_current(), tgid);

	if (KRIE_READ(task_struct, target, tgid) == tgid)
		return true;
	return KRIE_READ(task_struct, target, ptrace) && KRIE_READ(task_struct, tracer, tgid) == tgid;
}

#define RUNTIME_INTEGRITY_CAP_SYS_PTRACE 19

/* Whether the caller has power over the target's user namespace, which only a user namespace gave it: it made that one,
 * or is privileged in it or between it and the initial one. As cap_capable() of the kernel goes up; nested deeper than
 * this does, processes are told as those of other users. Users of two namespaces cannot be compared by number: those of
 * a container are all its maker's. */
static __always_inline u64 runtime_integrity_governs(const struct cred *own, const struct cred *theirs)
{
	struct user_namespace *mine = KRIE_READ(cred, own, user_ns);
	struct user_namespace *each = KRIE_READ(cred, theirs, user_ns);
	u32 uid = KRIE_READ(cred, own, euid.val);
	u32 capabilities = 0, owner;
	u64 governs = 0, made, privileged;
	struct user_namespace *above;

	bpf_probe_read_kernel(&capabilities, sizeof(capabilities), KRIE_ADDRESS(cred, own, cap_effective));
#pragma unroll
	for (int nesting = 0; nesting < 4; nesting++) {
		above = KRIE_READ(user_namespace, each, parent);
		owner = KRIE_READ(user_namespace, each, owner.val);
		made = krie_equal((u64)above, (u64)mine) * krie_equal(owner, uid) * krie_truth(owner);
		privileged = krie_equal((u64)each, (u64)mine) * (capabilities >> RUNTIME_INTEGRITY_CAP_SYS_PTRACE & 1);
		governs |= krie_truth((u64)above) * (made | privileged); /* nothing is above the initial one */
		each = above;
	}
	return governs;
}

/* `can`: see krie_decide_...(). Returns the operation's error, 0 where the program cannot refuse. */
static __always_inline int runtime_integrity_ptrace_event(struct task_struct *target, u8 operation, u32 request,
							  const u32 can)
{
	target = krie_without_type(target); /* no arithmetic is allowed on a pointer that has one */
	const struct cred *own = KRIE_READ(task_struct, krie_current(), cred);
	const struct cred *cred = KRIE_READ(task_struct, target, real_cred);
	u32 target_uid = KRIE_READ(cred, cred, uid.val);
	u64 exists = krie_truth((u64)target);
	struct runtime_integrity_ptrace_inline known = {
		.operation = operation,
		.compat = krie_compat(krie_current()),
		.target_known = exists,
		.target_tgid = KRIE_READ(task_struct, target, tgid), /* of none, as all of it, 0 */
		.other_user = exists * (1 - krie_equal(target_uid, KRIE_READ(cred, own, uid.val))) *
			      (1 - runtime_integrity_governs(own, cred)),
	};
	struct runtime_integrity_ptrace *record;
	struct krie_answer answer;
	int error = 0;

	answer = krie_decide_runtime_integrity_ptrace(&known, can);
	answer.digest = krie_digest_with(answer.digest, target);
	record = krie_reserve_runtime_integrity_ptrace(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_ptrace(record, &known);
	record->request = request;
	if (target) {
		record->target_uid = target_uid;
		record->target_tid = KRIE_READ(task_struct, target, pid);
		record->target_start_time = krie_start_time(target);
	}
	krie_submit_runtime_integrity_ptrace(record);
	return error;
}

/* Whether the current system call, by a 64-bit entry, is one of those that read from an open file. */
static __always_inline u64 runtime_integrity_reading(const struct krie_syscall *call)
{
	u64 number = call->number;

	return (1 - call->compat) * (krie_equal(number, 0) /* read */ | krie_equal(number, 17) /* pread64 */ |
				     krie_equal(number, 19) /* readv */ | krie_equal(number, 40) /* sendfile */ |
				     krie_equal(number, 275) /* splice */ | krie_equal(number, 295) /* preadv */ |
				     krie_equal(number, 326) /* copy_file_range */ |
				     krie_equal(number, 327) /* preadv2 */);
}

/* Whether it opens a file for reading only. openat2() has its flags in memory that the caller can still change, and
 * io_uring elsewhere: they could write. */
static __always_inline u64 runtime_integrity_opening_to_read(const struct krie_syscall *call)
{
	return (1 - call->compat) * (krie_equal(call->number, 2) * krie_equal(call->second & 3, 0) | /* open */
				     krie_equal(call->number, 257) * krie_equal(call->third & 3, 0)); /* openat */
}

/* security_ptrace_access_check(child, mode): also asked for each read of /proc/TGID/maps and the like, without ATTACH.
 * With it, and by credentials for files, when /proc/TGID/mem is opened, and when /proc/TGID/stack, syscall or
 * personality are read: those show what the kernel knows, and give nobody any power. Which of these it is, only the
 * system call tells: of a thread with rings of io_uring, or of their worker, it counts as the worst. */
static __always_inline int runtime_integrity_access(struct task_struct *child, u32 mode, const u32 can)
{
	struct krie_syscall call;
	u64 by_file = krie_truth(mode & RUNTIME_INTEGRITY_PTRACE_MODE_FSCREDS);
	u64 by_memory;

	if (!(mode & RUNTIME_INTEGRITY_PTRACE_MODE_ATTACH))
		return 0;
	if (!krie_enter())
		return 0;
	if (runtime_integrity_controls(child))
		return 0;
	call = krie_syscall_surely_now();
	if (by_file * runtime_integrity_reading(&call))
		return 0;
	by_memory = (1 - call.compat) * krie_equal(call.number, 310); /* process_vm_readv */
	return runtime_integrity_ptrace_event(
	    child,
	    by_file * (RUNTIME_INTEGRITY_PTRACE_OPERATION_PROCFS + runtime_integrity_opening_to_read(&call)) +
		(1 - by_file) * (RUNTIME_INTEGRITY_PTRACE_OPERATION_ACCESS + by_memory),
	    0, can);
}

static __always_inline int runtime_integrity_traceme(const u32 can)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_ptrace_event(krie_current(), RUNTIME_INTEGRITY_PTRACE_OPERATION_TRACEME, 0, can);
}

int runtime_integrity_access_hook(u64 *ctx)
{
	return runtime_integrity_access((struct task_struct *)ctx[0], ctx[1], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_traceme_hook(u64 *ctx)
{
	return runtime_integrity_traceme(KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_access_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_access((struct task_struct *)ctx->di, ctx->si, KRIE_CAN_KILL);
}

int runtime_integrity_traceme_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_traceme(KRIE_CAN_KILL);
}

#define RUNTIME_INTEGRITY_PTRACE_TRACEME 0 /* include/uapi/linux/ptrace.h */
#define RUNTIME_INTEGRITY_PTRACE_ATTACH 16
#define RUNTIME_INTEGRITY_PTRACE_SEIZE 0x4206

/* The operation that a request of ptrace(2) is; 0 for those on a process that is traced already. */
static __always_inline u8 runtime_integrity_request(u32 request)
{
	if (request == RUNTIME_INTEGRITY_PTRACE_TRACEME)
		return RUNTIME_INTEGRITY_PTRACE_OPERATION_TRACEME;
	if (request == RUNTIME_INTEGRITY_PTRACE_ATTACH)
		return RUNTIME_INTEGRITY_PTRACE_OPERATION_ATTACH;
	return request == RUNTIME_INTEGRITY_PTRACE_SEIZE ? RUNTIME_INTEGRITY_PTRACE_OPERATION_SEIZE : 0;
}

/* A system call that asks for an operation on the thread `tid`. */
static __always_inline int runtime_integrity_asked(u8 operation, u32 request, u32 tid, const u32 can)
{
	struct task_struct *target = krie_current();

	if (operation != RUNTIME_INTEGRITY_PTRACE_OPERATION_TRACEME) {
		target = krie_task_by_tid(krie_current(), tid);
		if (target && runtime_integrity_controls(target))
			return 0;
		target = krie_without_type(target);
	}
	return runtime_integrity_ptrace_event(target, operation, request, can);
}

/* __x64_sys_ptrace(regs of the caller) */
int runtime_integrity_ptrace_override(struct pt_regs *ctx)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	u32 request = KRIE_READ(pt_regs, caller, di);
	u8 operation = runtime_integrity_request(request);
	int error;

	if (!operation || !krie_enter())
		return 0;
	error = runtime_integrity_asked(operation, request, KRIE_READ(pt_regs, caller, si),
					KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

static __always_inline int runtime_integrity_vm_override(struct pt_regs *ctx, u8 operation)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	int error;

	if (!krie_enter())
		return 0;
	error = runtime_integrity_asked(operation, 0, KRIE_READ(pt_regs, caller, di), KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

/* __x64_sys_process_vm_readv(regs of the caller) */
int runtime_integrity_readv_override(struct pt_regs *ctx)
{
	return runtime_integrity_vm_override(ctx, RUNTIME_INTEGRITY_PTRACE_OPERATION_VM_READ);
}

/* __x64_sys_process_vm_writev(regs of the caller) */
int runtime_integrity_writev_override(struct pt_regs *ctx)
{
	return runtime_integrity_vm_override(ctx, RUNTIME_INTEGRITY_PTRACE_OPERATION_VM_WRITE);
}

int runtime_integrity_ptrace_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;
	u8 operation;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	operation = runtime_integrity_request(call.first);
	return operation ? runtime_integrity_asked(operation, call.first, call.second, KRIE_CAN_KILL) : 0;
}

static __always_inline int runtime_integrity_vm_syscall(struct bpf_raw_tracepoint_args *ctx, u8 operation)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	return runtime_integrity_asked(operation, 0, call.first, KRIE_CAN_KILL);
}

int runtime_integrity_readv_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	return runtime_integrity_vm_syscall(ctx, RUNTIME_INTEGRITY_PTRACE_OPERATION_VM_READ);
}

int runtime_integrity_writev_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	return runtime_integrity_vm_syscall(ctx, RUNTIME_INTEGRITY_PTRACE_OPERATION_VM_WRITE);
}
