/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * bpf(2) calls. One small function per attach type turns what it is given into the arguments of one
 * common function.
 */

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

/* `refuses`: the program's return value is the operation's. Returns it. */
static __always_inline int runtime_integrity_bpf_event(u32 program, u32 command, void *attributes, u64 size, bool trusted,
						       bool compat, bool refuses)
{
	struct runtime_integrity_attr attr = {};
	struct runtime_integrity_bpf *record;
	struct krie_answer answer = {};
	long refused;
	int error = 0;

#ifndef RUNTIME_INTEGRITY_MAP_ACCESS
	if (runtime_integrity_map_access(command))
		return 0;
#endif
	if (!krie_enter(program))
		return 0;
	if (refuses) {
		answer = krie_decide(KRIE_KIND_RUNTIME_INTEGRITY_BPF);
		error = krie_error(&answer);
	}
	record = krie_reserve_runtime_integrity_bpf(program);
	if (!record)
		return error;
	krie_stamp(&record->header, &answer);
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
	return error;
}

/* security_bpf(cmd, attr, size): the kernel's copy of the attributes. */
#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_LSM
int runtime_integrity_bpf_lsm(u64 *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_lsm, ctx[0], (void *)ctx[1], ctx[2], true,
					   krie_compat(krie_current()), true);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_FMOD_RET
int runtime_integrity_bpf_fmod_ret(u64 *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_fmod_ret, ctx[0], (void *)ctx[1], ctx[2],
					   true, krie_compat(krie_current()), true);
}
#endif

/* __x64_sys_bpf(regs of the caller) */
#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_KPROBE_OVERRIDE
int runtime_integrity_bpf_kprobe_override(struct pt_regs *ctx)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	int error = runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_kprobe_override,
						KRIE_READ(pt_regs, caller, di), (void *)KRIE_READ(pt_regs, caller, si),
						KRIE_READ(pt_regs, caller, dx), false, false, true);

	if (error)
		bpf_override_return(ctx, error);
	return 0;
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_KPROBE
int runtime_integrity_bpf_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_kprobe, ctx->di, (void *)ctx->si, ctx->dx,
					   true, krie_compat(krie_current()), false);
}
#endif

#ifdef KRIE_USE_RUNTIME_INTEGRITY_BPF_RAW_TRACEPOINT
int runtime_integrity_bpf_raw(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_syscall_is_either(ctx, 321, 357)) /* bpf(2) of x86-64 and x32, and of ia32 */
		return 0;
	struct krie_syscall call = krie_syscall_of(ctx);

	if (call.number != (call.compat ? 357 : 321))
		return 0;
	return runtime_integrity_bpf_event(KRIE_PROGRAM_runtime_integrity_bpf_raw, call.first, (void *)call.second,
					   call.third, false, call.compat, false);
}
#endif
