/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Programs of runtime_integrity. Each probe has one small function per attach type, which turns what it is given into
 * the arguments of one common function.
 */

#define RUNTIME_INTEGRITY_ATTACH 1 /* values of `operation`: OPERATIONS in events.py */
#define RUNTIME_INTEGRITY_SEIZE 2
#define RUNTIME_INTEGRITY_TRACEME 3
#define RUNTIME_INTEGRITY_ACCESS 4
#define RUNTIME_INTEGRITY_VM_READ 5
#define RUNTIME_INTEGRITY_VM_WRITE 6
#define RUNTIME_INTEGRITY_PROCFS 7

/* ---- ptrace ---- */

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

static __always_inline int runtime_integrity_ptrace_event(u32 program, struct task_struct *target, u8 operation,
							  u32 request)
{
	struct runtime_integrity_ptrace *record = krie_reserve_runtime_integrity_ptrace(program);

	if (!record)
		return 0;
	record->operation = operation;
	record->request = request;
	record->compat = krie_compat(krie_current());
	if (target) {
		const struct cred *cred = KRIE_READ(task_struct, target, real_cred);

		record->target_known = 1;
		record->target_tgid = KRIE_READ(task_struct, target, tgid);
		record->target_tid = KRIE_READ(task_struct, target, pid);
		record->target_start_time = krie_start_time(target);
		record->target_uid = KRIE_READ(cred, cred, uid.val);
	}
	krie_submit_runtime_integrity_ptrace(record);
	return 0;
}

/* security_ptrace_access_check(child, mode): also asked for each read of /proc/TGID/maps and the like, without ATTACH. */
static __always_inline int runtime_integrity_access(u32 program, struct task_struct *child, u32 mode)
{
	if (!(mode & RUNTIME_INTEGRITY_PTRACE_MODE_ATTACH))
		return 0;
	if (!krie_enter(program))
		return 0;
	if (runtime_integrity_controls(child))
		return 0;
	return runtime_integrity_ptrace_event(
		program, child,
		mode & RUNTIME_INTEGRITY_PTRACE_MODE_FSCREDS ? RUNTIME_INTEGRITY_PROCFS : RUNTIME_INTEGRITY_ACCESS, 0);
}

static __always_inline int runtime_integrity_traceme(u32 program)
{
	if (!krie_enter(program))
		return 0;
	return runtime_integrity_ptrace_event(program, krie_current(), RUNTIME_INTEGRITY_TRACEME, 0);
}

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_LSM
int runtime_integrity_access_lsm(u64 *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_lsm, (struct task_struct *)ctx[0], ctx[1]);
}

int runtime_integrity_traceme_lsm(u64 *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_lsm);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_FMOD_RET
int runtime_integrity_access_fmod_ret(u64 *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_fmod_ret, (struct task_struct *)ctx[0],
					ctx[1]);
}

int runtime_integrity_traceme_fmod_ret(u64 *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_fmod_ret);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_KPROBE
int runtime_integrity_access_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_access(KRIE_PROGRAM_runtime_integrity_access_kprobe, (struct task_struct *)ctx->di,
					ctx->si);
}

int runtime_integrity_traceme_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_traceme(KRIE_PROGRAM_runtime_integrity_traceme_kprobe);
}
#endif

#if defined(KRIE_USE_RUNTIME_INTEGRITY_PTRACE_RAW_TRACEPOINT) || defined(KRIE_USE_RUNTIME_INTEGRITY_BPF_RAW_TRACEPOINT)
/* Arguments of a system call at sys_enter(regs, number). For 32-bit entries the registers, and the numbers, differ. */
struct runtime_integrity_syscall {
	u64 number, first, second, third;
	bool compat;
};

/* Whether the system call is one of two numbers, the cheapest question that can be asked of every system call. */
static __always_inline bool runtime_integrity_either(struct bpf_raw_tracepoint_args *ctx, u64 native, u64 ia32)
{
	u64 number = ctx->args[1] & ~(u64)KRIE_X32_BIT;

	return number == native || number == ia32;
}

static __always_inline struct runtime_integrity_syscall runtime_integrity_call(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];
	struct runtime_integrity_syscall call = {
		.number = ctx->args[1] & ~(u64)KRIE_X32_BIT,
		.compat = krie_compat(krie_current()),
	};

	if (call.compat) {
		call.first = (u32)KRIE_READ(pt_regs, regs, bx);
		call.second = (u32)KRIE_READ(pt_regs, regs, cx);
		call.third = (u32)KRIE_READ(pt_regs, regs, dx);
	} else {
		call.first = KRIE_READ(pt_regs, regs, di);
		call.second = KRIE_READ(pt_regs, regs, si);
		call.third = KRIE_READ(pt_regs, regs, dx);
	}
	return call;
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_PTRACE_RAW_TRACEPOINT
#define RUNTIME_INTEGRITY_PTRACE_TRACEME 0 /* include/uapi/linux/ptrace.h */
#define RUNTIME_INTEGRITY_PTRACE_ATTACH 16
#define RUNTIME_INTEGRITY_PTRACE_SEIZE 0x4206

/* The operation that a system call asks for by its number (x86-64, x32, ia32); 0 for every other call. */
static __always_inline u8 runtime_integrity_operation(u64 number, bool compat, u32 request)
{
	if (number == (compat ? 26 : 101) || (!compat && number == 521)) {
		if (request == RUNTIME_INTEGRITY_PTRACE_TRACEME)
			return RUNTIME_INTEGRITY_TRACEME;
		if (request == RUNTIME_INTEGRITY_PTRACE_ATTACH)
			return RUNTIME_INTEGRITY_ATTACH;
		return request == RUNTIME_INTEGRITY_PTRACE_SEIZE ? RUNTIME_INTEGRITY_SEIZE : 0;
	}
	if (number == (compat ? 347 : 310) || (!compat && number == 539))
		return RUNTIME_INTEGRITY_VM_READ;
	if (number == (compat ? 348 : 311) || (!compat && number == 540))
		return RUNTIME_INTEGRITY_VM_WRITE;
	return 0;
}

int runtime_integrity_ptrace_raw(struct bpf_raw_tracepoint_args *ctx)
{
	if (!runtime_integrity_either(ctx, 101, 26) && !runtime_integrity_either(ctx, 310, 347) &&
	    !runtime_integrity_either(ctx, 311, 348) && !runtime_integrity_either(ctx, 521, 539) &&
	    !runtime_integrity_either(ctx, 540, 540))
		return 0;
	if (!krie_enter(KRIE_PROGRAM_runtime_integrity_ptrace_raw))
		return 0;
	struct runtime_integrity_syscall call = runtime_integrity_call(ctx);
	u8 operation = runtime_integrity_operation(call.number, call.compat, call.first);
	struct task_struct *target;
	u32 request = 0, tid = call.first;

	if (!operation)
		return 0;
	if (operation == RUNTIME_INTEGRITY_TRACEME) {
		target = krie_current();
	} else {
		if (operation < RUNTIME_INTEGRITY_ACCESS) {
			request = call.first;
			tid = call.second;
		}
		target = krie_task_by_tid(krie_current(), tid);
		if (target && runtime_integrity_controls(target))
			return 0;
	}
	return runtime_integrity_ptrace_event(KRIE_PROGRAM_runtime_integrity_ptrace_raw, target, operation, request);
}
#endif

/* ---- bpf ---- */

#define RUNTIME_INTEGRITY_ATTR_BYTES 116 /* of union bpf_attr, up to attach_btf_obj_fd */
#define RUNTIME_INTEGRITY_SCANNED 4096 /* instructions of a program that are looked at */

#define RUNTIME_INTEGRITY_SEND_SIGNAL 1 /* bits of `helpers`: HELPERS in names.py */
#define RUNTIME_INTEGRITY_OVERRIDE_RETURN 2
#define RUNTIME_INTEGRITY_PROBE_WRITE_USER 4

struct runtime_integrity_attr { /* the common starts of PROG_LOAD and MAP_CREATE in union bpf_attr */
	u32 type;
	u32 insn_count;
	u64 insns;
	u32 unused[3];
	char map_name[16]; /* 28 */
	u32 unused_too;
	char prog_name[16]; /* 48 */
	u32 ifindex;
	u32 expected_attach_type; /* 68 */
	u32 further[9];
	u32 attach_btf_id; /* 108 */
	u32 attach_btf_obj_fd; /* 112 */
	u32 end;
};

/* 1 where both are equal, 0 elsewhere, without a branch: the verifier would follow each of the 4096 instructions' ways. */
static __always_inline u32 runtime_integrity_equal(u64 one, u64 other)
{
	u64 differs = one ^ other;

	differs |= -differs; /* the highest bit is set for all but 0 */
	asm volatile("" : "+r"(differs)); /* clang must not make a branch of it */
	return 1 ^ (u32)(differs >> 63);
}

static __always_inline u32 runtime_integrity_helper(u64 instruction)
{
	/* The helper's number above the code (0x85: call) and the source register (0: a helper; else a program or kfunc). */
	u64 call = (instruction >> 32 << 16) | (instruction & 0xf0ff);

	return runtime_integrity_equal(call, 109 << 16 | 0x85) * RUNTIME_INTEGRITY_SEND_SIGNAL |
	       runtime_integrity_equal(call, 117 << 16 | 0x85) * RUNTIME_INTEGRITY_SEND_SIGNAL /* send_signal_thread */ |
	       runtime_integrity_equal(call, 58 << 16 | 0x85) * RUNTIME_INTEGRITY_OVERRIDE_RETURN |
	       runtime_integrity_equal(call, 36 << 16 | 0x85) * RUNTIME_INTEGRITY_PROBE_WRITE_USER;
}

/* Look for helpers in the instructions, which lie in user memory. Count and result are kept in the record, whose content
 * the verifier does not follow; with variables it would look at each step once for every range that they may have. One
 * instruction is read at a time for the same reason: the last of several would be a case of its own in every step. */
static __always_inline void runtime_integrity_scan(struct runtime_integrity_bpf *record, u64 insns)
{
	for (u32 index = 0; index < RUNTIME_INTEGRITY_SCANNED; index++) {
		u32 count = *(volatile u32 *)&record->insn_count;
		u64 instruction = 0;

		if (index >= count) {
			record->helpers_known = 1;
			return;
		}
		if (bpf_probe_read_user(&instruction, sizeof(instruction), (void *)(insns + index * sizeof(instruction))))
			return;
		record->helpers |= runtime_integrity_helper(instruction);
	}
}

static __always_inline bool runtime_integrity_map_access(u32 command)
{
	return (command >= BPF_MAP_LOOKUP_ELEM && command <= BPF_MAP_GET_NEXT_KEY) ||
	       command == BPF_MAP_LOOKUP_AND_DELETE_ELEM || (command >= 24 && command <= 27) /* the batch commands */;
}

static __always_inline int runtime_integrity_bpf_event(u32 program, u32 command, void *attributes, u64 size, bool trusted,
						       bool compat)
{
	struct runtime_integrity_attr attr = {};
	struct runtime_integrity_bpf *record;
	long refused;

#ifndef RUNTIME_INTEGRITY_MAP_ACCESS
	if (runtime_integrity_map_access(command))
		return 0;
#endif
	if (!krie_enter(program))
		return 0;
	record = krie_reserve_runtime_integrity_bpf(program);
	if (!record)
		return 0;
	size = krie_at_most(size, RUNTIME_INTEGRITY_ATTR_BYTES);
	refused = trusted ? bpf_probe_read_kernel(&attr, size, attributes) :
			    bpf_probe_read_user(&attr, size, attributes);
	record->command = command;
	record->compat = compat;
	record->attr_known = !refused;
	record->attr_trusted = trusted;
	if (command == BPF_MAP_CREATE) {
		__builtin_memcpy(record->name, attr.map_name, sizeof(record->name));
	} else if (command == BPF_PROG_LOAD) {
		__builtin_memcpy(record->name, attr.prog_name, sizeof(record->name));
		record->prog_type = attr.type;
		record->attach_type = attr.expected_attach_type;
		record->attach_btf_id = attr.attach_btf_id;
		record->attach_btf_module = attr.attach_btf_obj_fd != 0;
		record->insn_count = attr.insn_count;
		if (!refused)
			runtime_integrity_scan(record, attr.insns);
	}
	krie_submit_runtime_integrity_bpf(record);
	return 0;
}

/* security_bpf(cmd, attr, size): the kernel's copy of the attributes. */
#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_LSM
int runtime_integrity_bpf_lsm(u64 *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_lsm, ctx[0], (void *)ctx[1], ctx[2], true,
					   krie_compat(krie_current()));
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_FMOD_RET
int runtime_integrity_bpf_fmod_ret(u64 *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_fmod_ret, ctx[0], (void *)ctx[1], ctx[2],
					   true, krie_compat(krie_current()));
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_KPROBE
int runtime_integrity_bpf_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_kprobe, ctx->di, (void *)ctx->si, ctx->dx,
					   true, krie_compat(krie_current()));
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_RAW_TRACEPOINT
int runtime_integrity_bpf_raw(struct bpf_raw_tracepoint_args *ctx)
{
	if (!runtime_integrity_either(ctx, 321, 357)) /* bpf(2) of x86-64 and x32, and of ia32 */
		return 0;
	struct runtime_integrity_syscall call = runtime_integrity_call(ctx);

	if (call.number != (call.compat ? 357 : 321))
		return 0;
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_raw, call.first, (void *)call.second,
					   call.third, false, call.compat);
}
#endif

/* ---- sysctl_write ---- */

#ifdef KRIE_USE_RUNTIME_INTEGRITY_SYSCTL_WRITE_CGROUP_SYSCTL
#define RUNTIME_INTEGRITY_E2BIG (-7) /* the text is longer than the field, which holds its start */

/* The number that a text is, blanks around it ignored; false where it is anything else. */
static __always_inline bool runtime_integrity_number(const char *value, s64 *number)
{
	char text[64];
	long parsed = 0;
	long length;

	__builtin_memcpy(text, value, sizeof(text));
	length = bpf_strtol(text, sizeof(text), 0, &parsed);
	if (length <= 0)
		return false;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		u64 at = length + i;

		asm volatile("" : "+r"(at)); /* clang knows that the mask changes nothing; the verifier does not */
		at &= sizeof(text) - 1;
		if (!text[at]) {
			*number = parsed;
			return true;
		}
		if (text[at] != '\n' && text[at] != ' ' && text[at] != '\t')
			return false;
	}
	return false;
}

int runtime_integrity_sysctl(struct bpf_sysctl *ctx)
{
	struct runtime_integrity_sysctl_write *record;
	s64 number = 0;
	long length;

	if (!krie_enter(KRIE_PROGRAM_runtime_integrity_sysctl) || !ctx->write)
		return KRIE_CGROUP_ALLOW;
	record = krie_reserve_runtime_integrity_sysctl_write(KRIE_PROGRAM_runtime_integrity_sysctl);
	if (!record)
		return KRIE_CGROUP_ALLOW;
	record->file_pos = ctx->file_pos;
	record->name_truncated = bpf_sysctl_get_name(ctx, record->name, sizeof(record->name), 0) < 0;
	length = bpf_sysctl_get_current_value(ctx, record->old, sizeof(record->old));
	record->old_truncated = length == RUNTIME_INTEGRITY_E2BIG;
	if (length > 0 && runtime_integrity_number(record->old, &number)) {
		record->old_int = number;
		record->old_parsed = 1;
	}
	length = bpf_sysctl_get_new_value(ctx, record->new, sizeof(record->new));
	record->new_truncated = length == RUNTIME_INTEGRITY_E2BIG;
	record->length = length > 0 ? length : 0;
	if (length > 0 && runtime_integrity_number(record->new, &number)) {
		record->new_int = number;
		record->new_parsed = 1;
	}
	krie_submit_runtime_integrity_sysctl_write(record);
	return KRIE_CGROUP_ALLOW;
}
#endif
