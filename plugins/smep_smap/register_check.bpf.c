/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * One function for all places: at the entries of watched functions and, as a trap, at instructions inside of them.
 * Which place it is comes with krie_self(): SMEP_SMAP_NUMBER and so on.
 *
 * Nothing is sent unless a check fails. Flags are made by arithmetic: branches would double the verifier's ways.
 */

#define SMEP_SMAP_AGAIN_NS 1000000000ULL

KRIE_STATE("array", u32, struct smep_smap_kernel, smep_smap_kernel, 1);

/* By number of the function. */
BPF_PERCPU_ARRAY(smep_smap_counts, struct smep_smap_count, SMEP_SMAP_NUMBER + 1);

/* What a check found wrong, on its way from there to what is done about it: programs of kprobes do not interrupt one
 * another. */
struct smep_smap_found {
	u64 function, place, failed, traced, code_known;
	u64 stack, return_address;
};
BPF_PERCPU_ARRAY(smep_smap_found, struct smep_smap_found, 1);
BPF_PROG_ARRAY(smep_smap_failing, 1);

/* Threads that a record was sent for, and when. */
struct smep_smap_thread {
	u64 start_time;
	u64 tid;
};
BPF_TABLE("lru_hash", struct smep_smap_thread, u64, smep_smap_told, 1024);

/* Bytes of a task's kernel stack: THREAD_SIZE. Not every kernel's BTF has the type; with KASAN stacks are longer. */
#ifdef KRIE_HAS_thread_union__stack
#define SMEP_SMAP_STACK_BYTES sizeof(union thread_union)
#else
#define SMEP_SMAP_STACK_BYTES 16384
#endif

/* User memory, with 4 and with 5 levels of page tables. */
static __always_inline u64 smep_smap_in_user(u64 address)
{
	return 1 - (address >> 63);
}

static __always_inline u64 smep_smap_within(u64 address, u64 begin, u64 end)
{
	return krie_less(address - begin, end - begin);
}

static __always_inline u64 smep_smap_in_code(struct smep_smap_kernel *kernel, u64 address)
{
	return smep_smap_within(address, kernel->text, kernel->text_end) |
	       smep_smap_within(address, kernel->modules, kernel->modules_end);
}

/* Whether two bytes are FF and a ModRM of `call r/m64` (FF /2), and that one is among `forms`: a bit for each of its
 * mod and r/m, which together say how long the instruction is. */
static __always_inline u64 smep_smap_calls(u64 opcode, u64 modrm, const u64 forms)
{
	u64 form = ((modrm >> 3) & 0x18) | (modrm & 7);

	return krie_equal((opcode << 8 | modrm) & 0xff38, 0xff10) & (forms >> form);
}

/* Whether these 8 bytes of code end with the call that nearly all are, of 5 bytes. */
static __always_inline u64 smep_smap_behind_near_call(u64 code)
{
	return krie_equal((code >> 24) & 0xff, 0xe8);
}

/* Whether a call ends at the byte behind these 8 of code; also where a breakpoint stands at the place of a call: the
 * kernel is rewriting the instruction right now, and what it is cannot be told. */
static __always_inline u64 smep_smap_behind_call(u64 code)
{
	return smep_smap_behind_near_call(code) | krie_equal((code >> 24) & 0xff, 0xcc) |
	       smep_smap_calls((code >> 48) & 0xff, code >> 56,
			       0xff0000cf) | /* 2 bytes: registers, and what they point at */
	       smep_smap_calls((code >> 40) & 0xff, (code >> 48) & 0xff, 0x0000ef10) | /* 3: and a byte, or an index */
	       smep_smap_calls((code >> 32) & 0xff, (code >> 40) & 0xff, 0x00001000) | /* 4: and both */
	       smep_smap_calls((code >> 16) & 0xff, (code >> 24) & 0xff, 0x00ef0020) | /* 6: and 4 bytes */
	       smep_smap_calls((code >> 8) & 0xff, (code >> 16) & 0xff, 0x00100010); /* 7: and an index, too */
}

/* Where the current task's stack begins, as a number. 7.3 allows no arithmetic on a pointer that was loaded; one that
 * is stored in a map comes back as a number, and costs less so than to read it by a helper. Who interrupts between the
 * two has the same task, and stores the same. */
static __always_inline u64 smep_smap_stack_of(struct smep_smap_count *count)
{
	volatile u64 *stored = &count->stack;

	*stored = (u64)KRIE_LOAD(task_struct, krie_current_btf(), stack);
	return *stored;
}

static __always_inline u64 smep_smap_stack(struct pt_regs *ctx, u64 own, const u64 own_stack)
{
	u64 user = smep_smap_in_user(ctx->sp);
	u64 foreign = own_stack * (1 - user) * (1 - own);

	return user * SMEP_SMAP_REGISTER_CHECK_FAILED_STACK_USER +
	       foreign * SMEP_SMAP_REGISTER_CHECK_FAILED_STACK_KERNEL;
}

/* `code`: the 8 bytes before the address. */
static __always_inline u64 smep_smap_return(struct smep_smap_kernel *kernel, u64 address, u64 code, u64 unreadable,
					    u64 traced)
{
	u64 user = smep_smap_in_user(address);
	u64 inside = smep_smap_in_code(kernel, address) | krie_equal(kernel->text, 0);
	u64 text = (1 - user) * (1 - (inside & (1 - unreadable)));
	u64 call = (1 - user) * (1 - text) * (1 - smep_smap_behind_call(code));

	return (1 - traced) * (user * SMEP_SMAP_REGISTER_CHECK_FAILED_RETURN_USER +
			       text * SMEP_SMAP_REGISTER_CHECK_FAILED_RETURN_TEXT +
			       call * SMEP_SMAP_REGISTER_CHECK_FAILED_RETURN_CALL);
}

/* Whether a record was sent for this thread a moment ago; else one is now. */
static __always_inline bool smep_smap_was_told(void)
{
	struct task_struct *task = krie_current();
	struct smep_smap_thread thread = {
		.start_time = KRIE_READ(task_struct, task, start_boottime),
		.tid = KRIE_READ(task_struct, task, pid),
	};
	u64 now = bpf_ktime_get_boot_ns();
	u64 *before = smep_smap_told.lookup(&thread);

	if (before && now - *before < SMEP_SMAP_AGAIN_NS)
		return true;
	smep_smap_told.update(&thread, &now);
	return false;
}

static __always_inline void smep_smap_registers(struct smep_smap_register_check *record, struct pt_regs *ctx)
{
	record->ip = ctx->ip;
	record->sp = ctx->sp;
	record->ax = ctx->ax;
	record->bx = ctx->bx;
	record->cx = ctx->cx;
	record->dx = ctx->dx;
	record->si = ctx->si;
	record->di = ctx->di;
	record->bp = ctx->bp;
	record->r8 = ctx->r8;
	record->r9 = ctx->r9;
	record->r10 = ctx->r10;
	record->r11 = ctx->r11;
	record->r12 = ctx->r12;
	record->r13 = ctx->r13;
	record->r14 = ctx->r14;
	record->r15 = ctx->r15;
}

int smep_smap_check(struct pt_regs *ctx)
{
	u64 self = krie_self();
	u32 argument = self >> 32;
	u32 zero = 0, number = argument & SMEP_SMAP_NUMBER;
	struct smep_smap_kernel *kernel;
	struct smep_smap_count *count;
	struct smep_smap_found *found;
	u64 stack, own, unreadable, failed = 0, traced = 0, init_cred = 0, address = 0, code = 0;

	count = smep_smap_counts.lookup(&number);
	if (!count)
		return 0;
	stack = smep_smap_stack_of(count);
	own = smep_smap_within(ctx->sp, stack, stack + SMEP_SMAP_STACK_BYTES);
	if ((argument & SMEP_SMAP_TRAP) && own) {
		count->checks += 1; /* a trap has no canary: it ends here, before it is asked whose doing this is */
		return 0;
	}
	if (!krie_enter())
		return 0;
	kernel = smep_smap_kernel.lookup(&zero);
	if (!kernel)
		return 0;
	count->checks += 1;
	if (argument & SMEP_SMAP_CREDENTIALS)
		init_cred = krie_truth(kernel->init_cred) * krie_equal(ctx->di, kernel->init_cred);
	if (!(argument & SMEP_SMAP_TRAP)) {
		/* Both read on all kernels; one of them finds it. */
		if (bpf_probe_read_kernel(&address, sizeof(address), (void *)ctx->sp))
			bpf_probe_read_user(&address, sizeof(address), (void *)ctx->sp);
		/* Busy functions are called from the same place again and again. */
		if (own & krie_truth(address) & krie_equal(address, count->caller) & (1 - init_cred))
			return 0;
		unreadable = krie_truth(bpf_probe_read_kernel(&code, sizeof(code), (void *)(address - sizeof(code))));
		/* What nearly all others find, by few instructions. */
		if (own & smep_smap_in_code(kernel, address) & smep_smap_behind_near_call(code) & (1 - init_cred)) {
			count->caller = address;
			return 0;
		}
		traced = krie_truth(address) * (krie_equal(address, kernel->trampolines[0]) |
						krie_equal(address, kernel->trampolines[1]) |
						krie_equal(address, kernel->trampolines[2]));
		failed = smep_smap_return(kernel, address, code, unreadable, traced);
		count->traced += traced;
	}
	failed |= smep_smap_stack(ctx, own, !!(argument & SMEP_SMAP_OWN_STACK)) |
		  init_cred * SMEP_SMAP_REGISTER_CHECK_FAILED_INIT_CRED;
	if (!failed)
		return 0;
	count->failed += 1;
	found = smep_smap_found.lookup(&zero);
	if (!found)
		return 0;
	found->function = number;
	found->place =
	    argument & SMEP_SMAP_TRAP ? SMEP_SMAP_REGISTER_CHECK_PLACE_TRAP : SMEP_SMAP_REGISTER_CHECK_PLACE_ENTRY;
	found->failed = failed;
	found->traced = traced;
	found->code_known = krie_truth(kernel->text);
	found->stack = stack;
	found->return_address = address;
	smep_smap_failing.call(ctx, 0);
	return 0;
}

/* Something was wrong. One program for all places: each of them is small. */
int smep_smap_failed(struct pt_regs *ctx)
{
	struct smep_smap_register_check_inline known = {};
	struct smep_smap_register_check *record;
	struct smep_smap_kernel *kernel;
	struct smep_smap_count *count;
	struct smep_smap_found *found;
	struct krie_answer answer;
	u32 zero = 0, number;

	found = smep_smap_found.lookup(&zero);
	kernel = smep_smap_kernel.lookup(&zero);
	if (!found || !kernel)
		return 0;
	number = found->function;
	count = smep_smap_counts.lookup(&number);
	if (!count)
		return 0;
	known.function = found->function;
	known.place = found->place;
	known.failed = found->failed;
	known.traced = found->traced;
	known.code_known = found->code_known;
	answer = krie_decide_smep_smap_register_check(&known, KRIE_CAN_KILL);
	if (smep_smap_was_told()) {
		count->repeated += 1;
		return 0;
	}
	record = krie_reserve_smep_smap_register_check(&answer, KRIE_CAN_KILL);
	if (!record)
		return 0;
	krie_stamp(&record->header, &answer);
	krie_put_smep_smap_register_check(record, &known);
	smep_smap_registers(record, ctx);
	record->stack = found->stack;
	record->return_address = found->return_address;
	if (kernel->wants_stack)
		bpf_get_stack(ctx, record->kernel_stack, sizeof(record->kernel_stack), 0);
	krie_submit_smep_smap_register_check(record);
	return 0;
}
