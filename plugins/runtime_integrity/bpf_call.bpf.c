/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * bpf(2) calls. One small function per attach type turns what it is given into the arguments of one
 * common function.
 */

/* Whether the call does not come from bpf(2) itself, but from a BPF program of type syscall that such a call runs. */
static __always_inline u64 runtime_integrity_from_kernel(u32 command)
{
	struct krie_syscall call = krie_syscall_now();

	return 1 - (krie_equal(call.number, 321 + (357 - 321) * call.compat) & krie_equal((u32)call.first, command));
}

/* Whether a call reads or writes elements of a map, and such are not events. By arithmetic: see krie_truth(). */
static __always_inline bool runtime_integrity_left_out(u32 command)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u64 access = krie_less((u32)(command - BPF_MAP_LOOKUP_ELEM), BPF_MAP_GET_NEXT_KEY) |
		     krie_equal(command, BPF_MAP_LOOKUP_AND_DELETE_ELEM) |
		     krie_less((u32)(command - 24), 4); /* the batch commands */

	return !settings || access & krie_equal(settings->map_access, 0);
}

/* All instructions of the program were looked at, or as many as can be. `can`: see krie_decide_...(). Returns the
 * call's error, 0 where the program cannot refuse. */
static __always_inline int runtime_integrity_bpf_load(bool trusted, const u32 can)
{
	struct runtime_integrity_bpf_inline known = { .command = BPF_PROG_LOAD, .attr_trusted = trusted };
	struct runtime_integrity_loading *loading = runtime_integrity_loading_now();
	struct runtime_integrity_bpf *record;
	struct krie_answer answer;
	int error = 0;

	if (loading) {
		known.compat = loading->compat;
		known.attr_known = loading->attr_known;
		known.prog_type = loading->attr.type;
		known.attach_type = loading->attr.expected_attach_type;
		known.attach_btf_module = krie_truth(loading->attr.attach_btf_obj_fd);
		known.insn_count = loading->attr.insn_count;
		known.helpers = runtime_integrity_changing(loading);
		known.calls_kernel = loading->kernel;
		known.helpers_known = loading->known;
	}
	answer = krie_decide_runtime_integrity_bpf(&known, can);
	record = krie_reserve_runtime_integrity_bpf(&answer, can);
	if (!record) {
		runtime_integrity_end_scan();
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	}
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	loading =
	    runtime_integrity_loading_now(); /* asked again: the verifier need not remember whether there is one */
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_bpf(record, &known);
	record->from_kernel = trusted ? runtime_integrity_from_kernel(BPF_PROG_LOAD) : 0;
	if (loading) {
		__builtin_memcpy(record->name, loading->attr.prog_name, sizeof(record->name));
		record->attach_btf_id = loading->attr.attach_btf_id;
		__builtin_memcpy(record->called, loading->helpers, sizeof(record->called));
	}
	krie_submit_runtime_integrity_bpf(record);
	runtime_integrity_end_scan();
	return error;
}

#define RUNTIME_INTEGRITY_MAP_NAME 7 /* where map_name begins in union bpf_attr, in words */
#define RUNTIME_INTEGRITY_WORDS 12 /* of it that commands other than PROG_LOAD are judged by */

/* All other commands. */
static __always_inline int runtime_integrity_bpf_other(u32 command, struct runtime_integrity_bpf_inline *known,
						       const u32 *words, bool trusted, const u32 can)
{
	u64 links = krie_equal(command, RUNTIME_INTEGRITY_BPF_LINK_CREATE);
	u64 attaches = links | krie_equal(command, RUNTIME_INTEGRITY_BPF_PROG_ATTACH) |
		       krie_equal(command, RUNTIME_INTEGRITY_BPF_PROG_DETACH);
	u64 creates = krie_equal(command, BPF_MAP_CREATE);
	struct runtime_integrity_object object = runtime_integrity_object_of(command, words, known);
	struct runtime_integrity_bpf *record;
	struct krie_answer answer;
	int error = 0;

	answer = krie_decide_runtime_integrity_bpf(known, can);
	record = krie_reserve_runtime_integrity_bpf(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_bpf(record, known);
	record->from_kernel = trusted ? runtime_integrity_from_kernel(command) : 0;
	record->object_id = object.id;
	if (creates)
		__builtin_memcpy(record->name, words + RUNTIME_INTEGRITY_MAP_NAME, sizeof(record->name));
	else
		bpf_probe_read_kernel(record->name, sizeof(record->name), (void *)object.name);
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

/* Any other call than BPF_PROG_LOAD. */
static __always_inline int runtime_integrity_bpf_event(u32 command, void *attributes, u64 size, bool trusted,
						       u64 compat, const u32 can)
{
	struct runtime_integrity_bpf_inline known = { .command = command, .compat = compat, .attr_trusted = trusted };
	u32 words[RUNTIME_INTEGRITY_WORDS] = {};

	size = krie_at_most(size, sizeof(words));
	known.attr_known = 1 - krie_truth(trusted ? bpf_probe_read_kernel(words, size, attributes)
						  : bpf_probe_read_user(words, size, attributes));
	return runtime_integrity_bpf_other(command, &known, words, trusted, can);
}

/* Whether the call is looked at. */
static __always_inline bool runtime_integrity_bpf_enter(u32 command)
{
	return !runtime_integrity_left_out(command) && krie_enter();
}

/* What follows are two programs for each attach type. Where a program is loaded the first one goes on to the second,
 * and that to itself until all instructions were looked at. Where it cannot go on, since somebody emptied the map's
 * slot, it decides by what is known by then: not what the program calls. What is in one such map must be of one attach
 * type. */
BPF_PROG_ARRAY(runtime_integrity_scan_lsm, 1);
BPF_PROG_ARRAY(runtime_integrity_scan_fmod_ret, 1);
BPF_PROG_ARRAY(runtime_integrity_scan_kprobe, 1);
BPF_PROG_ARRAY(runtime_integrity_scan_syscall, 1);

#define RUNTIME_INTEGRITY_REFUSES (KRIE_CAN_REFUSE | KRIE_CAN_KILL)

/* security_bpf(cmd, attr, size, ...): the kernel's copy of the attributes. */
static __always_inline int runtime_integrity_bpf_hooked(u64 *ctx)
{
	return runtime_integrity_bpf_event(ctx[0], (void *)ctx[1], ctx[2], true, krie_compat(krie_current()),
					   RUNTIME_INTEGRITY_REFUSES);
}

static __always_inline void runtime_integrity_load_hooked(u64 *ctx)
{
	runtime_integrity_begin_scan((void *)ctx[1], ctx[2], true, krie_compat(krie_current()));
}

int runtime_integrity_bpf_lsm(u64 *ctx)
{
	if (!runtime_integrity_bpf_enter(ctx[0]))
		return 0;
	if ((u32)ctx[0] != BPF_PROG_LOAD)
		return runtime_integrity_bpf_hooked(ctx);
	runtime_integrity_load_hooked(ctx);
	runtime_integrity_scan_lsm.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

int runtime_integrity_bpf_scan_lsm(u64 *ctx)
{
	if (runtime_integrity_scan())
		runtime_integrity_scan_lsm.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

int runtime_integrity_bpf_fmod_ret(u64 *ctx)
{
	if (!runtime_integrity_bpf_enter(ctx[0]))
		return 0;
	if ((u32)ctx[0] != BPF_PROG_LOAD)
		return runtime_integrity_bpf_hooked(ctx);
	runtime_integrity_load_hooked(ctx);
	runtime_integrity_scan_fmod_ret.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

int runtime_integrity_bpf_scan_fmod_ret(u64 *ctx)
{
	if (runtime_integrity_scan())
		runtime_integrity_scan_fmod_ret.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

/* security_bpf_prog_load(prog, attr, ...), and for all other commands security_bpf(). What the kernel refuses before it
 * asks there is not told. */
int runtime_integrity_bpf_prog_lsm(u64 *ctx)
{
	if (!runtime_integrity_bpf_enter(BPF_PROG_LOAD))
		return 0;
	runtime_integrity_begin_scan_of((void *)ctx[0], (void *)ctx[1]);
	runtime_integrity_scan_lsm.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

int runtime_integrity_bpf_prog_fmod_ret(u64 *ctx)
{
	if (!runtime_integrity_bpf_enter(BPF_PROG_LOAD))
		return 0;
	runtime_integrity_begin_scan_of((void *)ctx[0], (void *)ctx[1]);
	runtime_integrity_scan_fmod_ret.call(ctx, 0);
	return runtime_integrity_bpf_load(true, RUNTIME_INTEGRITY_REFUSES);
}

int runtime_integrity_bpf_others_hook(u64 *ctx)
{
	if (!runtime_integrity_bpf_enter(ctx[0]) || (u32)ctx[0] == BPF_PROG_LOAD)
		return 0;
	return runtime_integrity_bpf_hooked(ctx);
}

/* __x64_sys_bpf(regs of the caller). Two programs, both attached, and the scan in one run, which the verifier follows
 * to its end: the kernel allows no tail calls to and from programs that can override. */
static __always_inline int runtime_integrity_bpf_overridden(struct pt_regs *ctx, const bool loads)
{
	struct pt_regs *caller = (struct pt_regs *)ctx->di;
	u32 command = KRIE_READ(pt_regs, caller, di);
	void *attributes = (void *)KRIE_READ(pt_regs, caller, si);
	u64 size = KRIE_READ(pt_regs, caller, dx);
	int error;

	if (!runtime_integrity_bpf_enter(command) || (command == BPF_PROG_LOAD) != loads)
		return 0;
	if (loads) {
		runtime_integrity_begin_scan(attributes, size, false, false);
		runtime_integrity_scan_some(RUNTIME_INTEGRITY_ONE_RUN + 1); /* and see that there is no more */
		error = runtime_integrity_bpf_load(false, RUNTIME_INTEGRITY_REFUSES);
	} else {
		error = runtime_integrity_bpf_event(command, attributes, size, false, false, RUNTIME_INTEGRITY_REFUSES);
	}
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

int runtime_integrity_bpf_load_kprobe_override(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_overridden(ctx, true);
}

int runtime_integrity_bpf_kprobe_override(struct pt_regs *ctx)
{
	return runtime_integrity_bpf_overridden(ctx, false);
}

int runtime_integrity_bpf_kprobe(struct pt_regs *ctx)
{
	u64 compat = krie_compat(krie_current());

	if (!runtime_integrity_bpf_enter(ctx->di))
		return 0;
	if ((u32)ctx->di != BPF_PROG_LOAD)
		return runtime_integrity_bpf_event(ctx->di, (void *)ctx->si, ctx->dx, true, compat, KRIE_CAN_KILL);
	runtime_integrity_begin_scan((void *)ctx->si, ctx->dx, true, compat);
	runtime_integrity_scan_kprobe.call(ctx, 0);
	return runtime_integrity_bpf_load(true, KRIE_CAN_KILL);
}

int runtime_integrity_bpf_scan_kprobe(struct pt_regs *ctx)
{
	if (runtime_integrity_scan())
		runtime_integrity_scan_kprobe.call(ctx, 0);
	return runtime_integrity_bpf_load(true, KRIE_CAN_KILL);
}

int runtime_integrity_bpf_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call = krie_syscall_of(ctx);

	if (!runtime_integrity_bpf_enter(call.first))
		return 0;
	if ((u32)call.first != BPF_PROG_LOAD)
		return runtime_integrity_bpf_event(call.first, (void *)call.second, call.third, false, call.compat,
						   KRIE_CAN_KILL);
	runtime_integrity_begin_scan((void *)call.second, call.third, false, call.compat);
	runtime_integrity_scan_syscall.call(ctx, 0);
	return runtime_integrity_bpf_load(false, KRIE_CAN_KILL);
}

int runtime_integrity_bpf_scan_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	if (runtime_integrity_scan())
		runtime_integrity_scan_syscall.call(ctx, 0);
	return runtime_integrity_bpf_load(false, KRIE_CAN_KILL);
}
