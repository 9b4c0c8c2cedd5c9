/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * A look: all pieces of what system calls pass are compared with what they were. Some pieces a run, one run after the
 * other by a tail call, so that the verifier looks at one and every kernel can: bpf_loop() needs 5.17 (e6f2dd0f8067).
 *
 * A piece that differs is handed to another program, which finds out what in it differs, decides, and tells one thing
 * of it.
 */

#define SYSCALL_TABLE_END 0
#define SYSCALL_TABLE_MORE 1
#define SYSCALL_TABLE_DIFFERS 2

/* Whether something else stands where ftrace's call is than a nop, a call, or the breakpoint of one that is being
 * changed. It lies in the first or, behind an endbr, in the first and second word. */
static __always_inline u64 syscall_table_patched(struct syscall_table_piece *piece, struct syscall_table_look *look)
{
	u64 there = piece->ftrace;
	u64 code = (look->content[0] >> ((8 * (there - 1)) & 63)) & 0xffffffff;
	u64 nop =
	    krie_equal(code, 0x00441f0f) | krie_equal(code, 0x66666666); /* the latter before 5.13 (a89dfde3dc3c) */

	return krie_truth(there) * (1 - (nop | krie_equal(code & 0xff, 0xe8) | krie_equal(code & 0xff, 0xcc)));
}

/* Read a piece. Whether that failed. */
static __always_inline bool syscall_table_read(struct syscall_table_piece *piece, struct syscall_table_look *look)
{
	if (!bpf_probe_read_kernel(look->content, ((piece->length - 1) & (sizeof(look->content) - 1)) + 1,
				   (void *)piece->address))
		return false;
	look->unreadable += 1;
	return true;
}

static __always_inline u64 syscall_table_word(struct syscall_table_piece *piece, struct syscall_table_look *look,
					      struct syscall_table_mask *mask, const int word)
{
	return (look->content[word] ^ piece->seen[word]) & mask->words[word];
}

static __always_inline u64 syscall_table_differs(struct syscall_table_piece *piece, struct syscall_table_look *look,
						 struct syscall_table_mask *mask)
{
	u64 difference = 0;

#pragma unroll
	for (int word = 0; word < SYSCALL_TABLE_SHORT; word++)
		difference |= syscall_table_word(piece, look, mask, word);
	if (piece->length <= 8 * SYSCALL_TABLE_SHORT)
		return difference | (syscall_table_patched(piece, look) ^ piece->told_patched);
#pragma unroll
	for (int word = SYSCALL_TABLE_SHORT; word < SYSCALL_TABLE_WORDS; word++)
		difference |= syscall_table_word(piece, look, mask, word);
	return difference;
}

static __always_inline struct syscall_table_look *syscall_table_begin(const u32 way, u64 trigger)
{
	u32 index = way;
	struct syscall_table_look *look = syscall_table_look.lookup(&index);

	if (look) {
		look->next = 0;
		look->trigger = trigger;
		look->looks += 1;
	}
	return look;
}

static __always_inline int syscall_table_go_on(const u32 way)
{
	u32 index = way;
	struct syscall_table_look *look = syscall_table_look.lookup(&index);

	if (!look)
		return SYSCALL_TABLE_END;
#pragma clang loop unroll(disable)
	for (u64 count = krie_uncounted(); count < SYSCALL_TABLE_AT_ONCE && KRIE_GOES_ON; count++) {
		struct syscall_table_piece *piece;
		struct syscall_table_mask *mask;
		u32 which;

		which = look->next;
		piece = syscall_table_pieces.lookup(&which);
		if (!piece || !piece->length)
			return SYSCALL_TABLE_END;
		look->next = which + 1;
		which = piece->mask;
		mask = syscall_table_masks.lookup(&which);
		if (!mask)
			return SYSCALL_TABLE_END;
		if (syscall_table_read(piece, look))
			continue;
		if (syscall_table_differs(piece, look, mask))
			return SYSCALL_TABLE_DIFFERS;
	}
	return SYSCALL_TABLE_MORE;
}

static __always_inline void syscall_table_loads(struct module *module)
{
#ifdef KRIE_HAS_module__state
	u64 thread = bpf_get_current_pid_tgid();
	struct syscall_table_loading loading = { .module = (u64)module };

	if (!KRIE_READ(module, module, init))
		return;
#if defined(KRIE_HAS_module__mem) /* since ac3b43283923; the first of these memories is MOD_TEXT */
	loading.begin = (u64)KRIE_READ(module, module, mem[0].base);
	loading.end = loading.begin + KRIE_READ(module, module, mem[0].size);
#elif defined(KRIE_HAS_module__core_layout)
	loading.begin = (u64)KRIE_READ(module, module, core_layout.base);
	loading.end = loading.begin + KRIE_READ(module, module, core_layout.text_size);
#endif
	syscall_table_loading.update(&thread, &loading);
#endif
}

/* The look behind the init function is over. Left there, it would be this thread's that comes to lie there next, while
 * another one loads that. */
static __always_inline void syscall_table_loaded(void)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 index = SYSCALL_TABLE_BY_TRACEPOINT;
	struct syscall_table_look *look = syscall_table_look.lookup(&index);

	if (look && look->trigger == SYSCALL_TABLE_HOOK_TRIGGER_MODULE_INIT)
		syscall_table_loading.delete(&thread);
}

/* Tracepoints: initcall_finish, module_load, module_free. */
int syscall_table_at_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	u64 trigger = krie_self() >> 32;

	if (!krie_enter() || !syscall_table_begin(SYSCALL_TABLE_BY_TRACEPOINT, trigger))
		return 0;
	if (trigger == SYSCALL_TABLE_HOOK_TRIGGER_MODULE_LOAD)
		syscall_table_loads((struct module *)ctx->args[0]);
	syscall_table_tracepoint_look.call(ctx, 0);
	return 0;
}

int syscall_table_look_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	int found = syscall_table_go_on(SYSCALL_TABLE_BY_TRACEPOINT);

	if (found == SYSCALL_TABLE_DIFFERS)
		syscall_table_tracepoint_tell.call(ctx, 0);
	if (found == SYSCALL_TABLE_MORE)
		syscall_table_tracepoint_look.call(ctx, 0);
	if (found == SYSCALL_TABLE_END)
		syscall_table_loaded();
	return 0;
}

/* Functions of the kernel that changed code or mappings, at their end. */
int syscall_table_at_return(struct pt_regs *ctx)
{
	if (!krie_enter() || !syscall_table_begin(SYSCALL_TABLE_BY_RETURN, (krie_self() >> 32) & 0xff))
		return 0;
	syscall_table_return_look.call(ctx, 0);
	return 0;
}

int syscall_table_look_return(struct pt_regs *ctx)
{
	int found = syscall_table_go_on(SYSCALL_TABLE_BY_RETURN);

	if (found == SYSCALL_TABLE_DIFFERS)
		syscall_table_return_tell.call(ctx, 0);
	if (found == SYSCALL_TABLE_MORE)
		syscall_table_return_look.call(ctx, 0);
	return 0;
}

/* The timer: each CPU has one that comes more often than a look is due, so that nobody knows when and where the next
 * is, and CPUs may go. Whoever it interrupts has nothing to do with what it finds. */
int syscall_table_at_time(void *ctx)
{
	struct syscall_table_kernel *kernel;
	struct krie_agent_state *agent;
	u64 now = bpf_ktime_get_boot_ns();
	u32 zero = 0;
	u64 *due;

	agent = krie_agent.lookup(&zero);
	due = syscall_table_due.lookup(&zero);
	kernel = syscall_table_kernel.lookup(&zero);
	if (!agent || !agent->armed || !due || !kernel || now < *due)
		return 0;
	*due = now + kernel->wait + (((u64)bpf_get_prandom_u32() * 2 * kernel->wait) >> 32);
	if (syscall_table_begin(SYSCALL_TABLE_BY_TIMER, SYSCALL_TABLE_HOOK_TRIGGER_TIMER))
		syscall_table_timer_look.call(ctx, 0);
	return 0;
}

int syscall_table_look_time(void *ctx)
{
	int found = syscall_table_go_on(SYSCALL_TABLE_BY_TIMER);

	if (found == SYSCALL_TABLE_DIFFERS)
		syscall_table_timer_tell.call(ctx, 0);
	if (found == SYSCALL_TABLE_MORE)
		syscall_table_timer_look.call(ctx, 0);
	return 0;
}
