/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * bpf(2) calls. One small function per attach type turns what it is given into the arguments of one
 * common function.
 */

#define RUNTIME_INTEGRITY_ATTR_BYTES 116 /* of union bpf_attr, up to attach_btf_obj_fd */

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

/* Whether the call does not come from bpf(2) itself, but from a BPF program of type syscall that such a call runs. */
static __always_inline u64 runtime_integrity_from_kernel(u32 command)
{
	struct krie_syscall call = krie_syscall_now();

	return 1 - (krie_equal(call.number, 321 + (357 - 321) * call.compat) & krie_equal((u32)call.first, command));
}

/* Whether a call reads or writes elements of a map, and such are no events. By arithmetic: see krie_truth(). */
static __always_inline bool runtime_integrity_left_out(u32 command)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u64 access = krie_less((u32)(command - BPF_MAP_LOOKUP_ELEM), BPF_MAP_GET_NEXT_KEY) |
		     krie_equal(command, BPF_MAP_LOOKUP_AND_DELETE_ELEM) |
		     krie_less((u32)(command - 24), 4); /* the batch commands */

	return !settings || access & krie_equal(settings->map_access, 0);
}

/* A program is loaded. A function of its own: whatever is done besides in it, the verifier does once more for each way out
 * of the scan. `can`: see krie_decide_...(). Returns the call's error, 0 where the program cannot refuse. */
static __always_inline int runtime_integrity_bpf_load(struct runtime_integrity_bpf_inline *known,
						      struct runtime_integrity_attr *attr, bool trusted, const u32 can)
{
	struct runtime_integrity_called none = {}, *called;
	struct runtime_integrity_scan found = {};
	u64 thread = bpf_get_current_pid_tgid();
	struct runtime_integrity_bpf *record;
	struct krie_answer answer;
	int error = 0;

	runtime_integrity_calls.update(&thread, &none);
	called = runtime_integrity_calls.lookup(&thread);
	known->prog_type = attr->type;
	known->attach_type = attr->expected_attach_type;
	known->attach_btf_module = attr->attach_btf_obj_fd; /* any but 0 is true; a comparison would be two ways into the scan */
	known->insn_count = attr->insn_count;
	if (called) {
		if (known->attr_known)
			runtime_integrity_scan(&found, called, &attr->insn_count, attr->insns);
		known->helpers = runtime_integrity_changing(called);
		known->calls_kernel = called->kernel;
		known->helpers_known = *(volatile u32 *)&found.known;
	}
	answer = krie_decide_runtime_integrity_bpf(known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_runtime_integrity_bpf();
	if (!record)
		goto out;
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_bpf(record, known);
	record->from_kernel = trusted ? runtime_integrity_from_kernel(BPF_PROG_LOAD) : 0;
	__builtin_memcpy(record->name, attr->prog_name, sizeof(record->name));
	record->attach_btf_id = attr->attach_btf_id;
	if (called)
		__builtin_memcpy(record->called, called->helpers, sizeof(record->called));
	krie_submit_runtime_integrity_bpf(record);
out:
	runtime_integrity_calls.delete(&thread);
	return error;
}

/* All other commands. */
static __always_inline int runtime_integrity_bpf_other(u32 command, struct runtime_integrity_bpf_inline *known,
						       struct runtime_integrity_attr *attr, bool trusted, const u32 can)
{
	u64 links = krie_equal(command, RUNTIME_INTEGRITY_BPF_LINK_CREATE);
	u64 attaches = links | krie_equal(command, RUNTIME_INTEGRITY_BPF_PROG_ATTACH) |
		       krie_equal(command, RUNTIME_INTEGRITY_BPF_PROG_DETACH);
	u64 creates = krie_equal(command, BPF_MAP_CREATE);
	volatile struct runtime_integrity_object object = {};
	const u32 *words = (const u32 *)attr;
	struct runtime_integrity_bpf *record;
	struct krie_answer answer;
	int error = 0;

	runtime_integrity_object_of(command, words, &object);
	known->object = object.kind;
	known->attach_type = object.attach_type;
	known->map_type = object.map_type;
	known->prog_type = object.prog_type;
	answer = krie_decide_runtime_integrity_bpf(known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_runtime_integrity_bpf();
	if (!record)
		return error;
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_bpf(record, known);
	record->from_kernel = trusted ? runtime_integrity_from_kernel(command) : 0;
	record->object_id = object.id;
	if (creates)
		__builtin_memcpy(record->name, attr->map_name, sizeof(record->name));
	else
		__builtin_memcpy(record->name, (void *)object.name, sizeof(record->name));
	if (attaches && runtime_integrity_is_interface(known->attach_type))
		record->ifindex = links ? words[1] : words[0];
	else if (attaches)
		record->target_ino = runtime_integrity_target(links ? words[1] : words[0]);
	if (command == RUNTIME_INTEGRITY_BPF_OBJ_PIN || command == RUNTIME_INTEGRITY_BPF_OBJ_GET ||
	    command == RUNTIME_INTEGRITY_BPF_RAW_TRACEPOINT_OPEN) {
		long (*read_any)(void *to, u32 size, const void *from) = (void *)45; /* bpf_probe_read_str */

		read_any(record->path, sizeof(record->path), (void *)(words[0] | (u64)words[1] << 32));
	}
	krie_submit_runtime_integrity_bpf(record);
	return error;
}

#define RUNTIME_INTEGRITY_LOADS 1 /* what a program looks at; both together are nearly more than the verifier takes */
#define RUNTIME_INTEGRITY_OTHERS 2

static __always_inline int runtime_integrity_bpf_event(const u32 wanted, u32 command, void *attributes, u64 size,
						       bool trusted, u64 compat, const u32 can)
{
	struct runtime_integrity_bpf_inline known = { .command = command, .compat = compat, .attr_trusted = trusted };
	struct runtime_integrity_attr attr = {};

	if (runtime_integrity_left_out(command))
		return 0;
	if (!krie_enter() || !(wanted & (command == BPF_PROG_LOAD ? RUNTIME_INTEGRITY_LOADS : RUNTIME_INTEGRITY_OTHERS)))
		return 0;
	size = krie_at_most(size, RUNTIME_INTEGRITY_ATTR_BYTES);
	known.attr_known = 1 - krie_truth(trusted ? bpf_probe_read_kernel(&attr, size, attributes) :
						    bpf_probe_read_user(&attr, size, attributes));
	if (wanted == RUNTIME_INTEGRITY_LOADS || (wanted & RUNTIME_INTEGRITY_LOADS && command == BPF_PROG_LOAD))
		return runtime_integrity_bpf_load(&known, &attr, trusted, can);
	return runtime_integrity_bpf_other(command, &known, &attr, trusted, can);
}

/* security_bpf(cmd, attr, size, ...): the kernel's copy of the attributes. */
int runtime_integrity_bpf_load_hook(u64 *ctx)
{
	return runtime_integrity_bpf_event(RUNTIME_INTEGRITY_LOADS, ctx[0], (void *)ctx[1], ctx[2], true,
					   krie_compat(krie_current()), KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_bpf_hook(u64 *ctx)
{
	return runtime_integrity_bpf_event(RUNTIME_INTEGRITY_OTHERS, ctx[0], (void *)ctx[1], ctx[2], true,
					   krie_compat(krie_current()), KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* __x64_sys_bpf(regs of the caller) */
static __always_inline int runtime_integrity_bpf_override(struct pt_regs *ctx, const u32 wanted)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	int error = runtime_integrity_bpf_event(wanted, KRIE_READ(pt_regs, caller, di),
						(void *)KRIE_READ(pt_regs, caller, si), KRIE_READ(pt_regs, caller, dx),
						false, false, KRIE_CAN_REFUSE | KRIE_CAN_KILL);

	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

int runtime_integrity_bpf_load_override(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_override(ctx, RUNTIME_INTEGRITY_LOADS);
}

int runtime_integrity_bpf_other_override(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_override(ctx, RUNTIME_INTEGRITY_OTHERS);
}

int runtime_integrity_bpf_load_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_event(RUNTIME_INTEGRITY_LOADS, ctx->di, (void *)ctx->si, ctx->dx, true,
					   krie_compat(krie_current()), KRIE_CAN_KILL);
}

int runtime_integrity_bpf_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_event(RUNTIME_INTEGRITY_OTHERS, ctx->di, (void *)ctx->si, ctx->dx, true,
					   krie_compat(krie_current()), KRIE_CAN_KILL);
}

/* One program for all commands. */
int runtime_integrity_bpf_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call = krie_syscall_of(ctx);

	return runtime_integrity_bpf_event(RUNTIME_INTEGRITY_LOADS | RUNTIME_INTEGRITY_OTHERS, call.first,
					   (void *)call.second, call.third, false, call.compat, KRIE_CAN_KILL);
}
