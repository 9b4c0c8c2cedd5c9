/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Control over other processes. One small function per attach type turns what it is given into the arguments of one
 * common function.
 */

#define RUNTIME_INTEGRITY_ATTACH 1 /* values of `operation`: OPERATIONS in ptrace.py */
#define RUNTIME_INTEGRITY_SEIZE 2
#define RUNTIME_INTEGRITY_TRACEME 3
#define RUNTIME_INTEGRITY_ACCESS 4
#define RUNTIME_INTEGRITY_VM_READ 5
#define RUNTIME_INTEGRITY_VM_WRITE 6
#define RUNTIME_INTEGRITY_PROCFS 7

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

/* `can`: see krie_decide_...(). Returns the operation's error, 0 where the program cannot refuse. */
static __always_inline int runtime_integrity_ptrace_event(u32 program, struct task_struct *target, u8 operation,
							  u32 request, const u32 can)
{
	const struct cred *own = KRIE_READ(task_struct, krie_current(), cred);
	struct runtime_integrity_ptrace_inline known = {
		.operation = operation,
		.compat = krie_compat(krie_current()),
	};
	struct runtime_integrity_ptrace *record;
	struct krie_answer answer;
	u32 target_uid = 0;
	int error = 0;

	if (target) {
		const struct cred *cred = KRIE_READ(task_struct, target, real_cred);

		target_uid = KRIE_READ(cred, cred, uid.val);
		known.target_known = 1;
		known.target_tgid = KRIE_READ(task_struct, target, tgid);
		known.other_user = target_uid != KRIE_READ(cred, own, uid.val);
	}
	answer = krie_decide_runtime_integrity_ptrace(&known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_runtime_integrity_ptrace(program);
	if (!record)
		return error;
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

/* security_ptrace_access_check(child, mode): also asked for each read of /proc/TGID/maps and the like, without ATTACH. */
static __always_inline int runtime_integrity_access(u32 program, struct task_struct *child, u32 mode,
						    const u32 can)
{
	if (!(mode & RUNTIME_INTEGRITY_PTRACE_MODE_ATTACH))
		return 0;
	if (!krie_enter(program))
		return 0;
	if (runtime_integrity_controls(child))
		return 0;
	return runtime_integrity_ptrace_event(
		program, child,
		mode & RUNTIME_INTEGRITY_PTRACE_MODE_FSCREDS ? RUNTIME_INTEGRITY_PROCFS : RUNTIME_INTEGRITY_ACCESS, 0,
		can);
}

static __always_inline int runtime_integrity_traceme(u32 program, const u32 can)
{
	if (!krie_enter(program))
		return 0;
	return runtime_integrity_ptrace_event(program, krie_current(), RUNTIME_INTEGRITY_TRACEME, 0, can);
}

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_LSM
int runtime_integrity_access_lsm(u64 *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_lsm, (struct task_struct *)ctx[0], ctx[1],
					KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_traceme_lsm(u64 *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_lsm, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_FMOD_RET
int runtime_integrity_access_fmod_ret(u64 *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_fmod_ret, (struct task_struct *)ctx[0],
					ctx[1], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_traceme_fmod_ret(u64 *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_fmod_ret, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_KPROBE
int runtime_integrity_access_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_kprobe, (struct task_struct *)ctx->di,
					ctx->si, KRIE_CAN_KILL);
}

int runtime_integrity_traceme_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_kprobe, KRIE_CAN_KILL);
}
#endif

#define RUNTIME_INTEGRITY_PTRACE_TRACEME 0 /* include/uapi/linux/ptrace.h */
#define RUNTIME_INTEGRITY_PTRACE_ATTACH 16
#define RUNTIME_INTEGRITY_PTRACE_SEIZE 0x4206

/* The operation that a request of ptrace(2) is; 0 for those on a process that is traced already. */
static __always_inline u8 runtime_integrity_request(u32 request)
{
	if (request == RUNTIME_INTEGRITY_PTRACE_TRACEME)
		return RUNTIME_INTEGRITY_TRACEME;
	if (request == RUNTIME_INTEGRITY_PTRACE_ATTACH)
		return RUNTIME_INTEGRITY_ATTACH;
	return request == RUNTIME_INTEGRITY_PTRACE_SEIZE ? RUNTIME_INTEGRITY_SEIZE : 0;
}

/* A system call that asks for an operation on the thread `tid`. */
static __always_inline int runtime_integrity_asked(u32 program, u8 operation, u32 request, u32 tid, const u32 can)
{
	struct task_struct *target = krie_current();

	if (operation != RUNTIME_INTEGRITY_TRACEME) {
		target = krie_task_by_tid(krie_current(), tid);
		if (target && runtime_integrity_controls(target))
			return 0;
	}
	return runtime_integrity_ptrace_event(program, target, operation, request, can);
}

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_KPROBE_OVERRIDE
/* __x64_sys_ptrace(regs of the caller) */
int runtime_integrity_ptrace_override(struct pt_regs *ctx)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	u32 request = KRIE_READ(pt_regs, caller, di);
	u8 operation = runtime_integrity_request(request);
	int error;

	if (!operation || !krie_enter(KRIE_PROGRAM_runtime_integrity_ptrace_override))
		return 0;
	error = runtime_integrity_asked(KRIE_PROGRAM_runtime_integrity_ptrace_override, operation, request,
					KRIE_READ(pt_regs, caller, si), KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

static __always_inline int runtime_integrity_vm_override(struct pt_regs *ctx, u32 program, u8 operation)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	int error;

	if (!krie_enter(program))
		return 0;
	error = runtime_integrity_asked(program, operation, 0, KRIE_READ(pt_regs, caller, di),
					KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

/* __x64_sys_process_vm_readv(regs of the caller) */
int runtime_integrity_readv_override(struct pt_regs *ctx)
{
	return runtime_integrity_vm_override(ctx, KRIE_PROGRAM_runtime_integrity_readv_override,
					     RUNTIME_INTEGRITY_VM_READ);
}

/* __x64_sys_process_vm_writev(regs of the caller) */
int runtime_integrity_writev_override(struct pt_regs *ctx)
{
	return runtime_integrity_vm_override(ctx, KRIE_PROGRAM_runtime_integrity_writev_override,
					     RUNTIME_INTEGRITY_VM_WRITE);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_RAW_TRACEPOINT
/* The operation that a system call asks for by its number (x86-64, x32, ia32); 0 for every other call. */
static __always_inline u8 runtime_integrity_operation(u64 number, bool compat, u32 request)
{
	if (number == (compat ? 26 : 101) || (!compat && number == 521)) {
		return runtime_integrity_request(request);
	}
	if (number == (compat ? 347 : 310) || (!compat && number == 539))
		return RUNTIME_INTEGRITY_VM_READ;
	if (number == (compat ? 348 : 311) || (!compat && number == 540))
		return RUNTIME_INTEGRITY_VM_WRITE;
	return 0;
}

int runtime_integrity_ptrace_raw(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_syscall_is_either(ctx, 101, 26) && !krie_syscall_is_either(ctx, 310, 347) &&
	    !krie_syscall_is_either(ctx, 311, 348) && !krie_syscall_is_either(ctx, 521, 539) &&
	    !krie_syscall_is_either(ctx, 540, 540))
		return 0;
	if (!krie_enter(KRIE_PROGRAM_runtime_integrity_ptrace_raw))
		return 0;
	struct krie_syscall call = krie_syscall_of(ctx);
	u8 operation = runtime_integrity_operation(call.number, call.compat, call.first);
	u32 request = 0, tid = call.first;

	if (!operation)
		return 0;
	if (operation < RUNTIME_INTEGRITY_ACCESS) {
		request = call.first;
		tid = call.second;
	}
	return runtime_integrity_asked(KRIE_PROGRAM_runtime_integrity_ptrace_raw, operation, request, tid,
				       KRIE_CAN_KILL);
}
#endif
