/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Looks at the kernel's variables between two scans, at random times and where a moment is enough for an exploit.
 * A look compares words with what the agent expects of them (expected_words.py), and tells the first that is new. Where
 * it found one, the timer looks again at its next tick: what a look tells is so bounded whatever changes at once.
 */

#define RUNTIME_INTEGRITY_SET_ID 06000 /* S_ISUID | S_ISGID, include/uapi/linux/stat.h */
#define RUNTIME_INTEGRITY_LOOK_NS                                                                                      \
	500000000ULL /* looks of the timer are so far apart and, at random, up to three times as far */

KRIE_STATE("array", u32, struct runtime_integrity_expected, runtime_integrity_expected, RUNTIME_INTEGRITY_EXPECTED);
BPF_ARRAY(runtime_integrity_told, struct runtime_integrity_told, RUNTIME_INTEGRITY_EXPECTED);
BPF_ARRAY(runtime_integrity_look_due, u64, 1); /* when the timer's next look is */

/* What a word holds now; 0 where it cannot be read. Without a branch, as what follows: before may_goto the verifier
 * looks at it for each word, and once for each way to it. */
static __always_inline u64 runtime_integrity_word_holds(struct runtime_integrity_expected *expected, u64 *value)
{
	u64 word = 0;
	u64 failed = bpf_probe_read_kernel(&word, ((expected->length - 1) & 7) + 1, (void *)expected->address);

	*value = (word & expected->mask) ^ expected->flip;
	return 1 - krie_truth(failed);
}

static __always_inline u64 runtime_integrity_word_differs(struct runtime_integrity_expected *expected, u64 value)
{
	return krie_less(value, expected->least) | krie_less(expected->most, value);
}

/* Whether this was not told yet. */
static __always_inline u64 runtime_integrity_word_is_new(struct runtime_integrity_told *told, u64 value, u64 differs)
{
	return differs * (1 - told->differs * krie_equal(told->value, value)) | (1 - differs) * told->differs;
}

/* The first word with something to tell; RUNTIME_INTEGRITY_EXPECTED: there is none. */
static __always_inline u32 runtime_integrity_first_new(void)
{
	u32 found = RUNTIME_INTEGRITY_EXPECTED;

#pragma clang loop unroll(disable)
	for (u64 count = krie_uncounted(); count < RUNTIME_INTEGRITY_EXPECTED && KRIE_GOES_ON; count++) {
		struct runtime_integrity_expected *expected;
		struct runtime_integrity_told *told;
		u32 which = count;
		u64 value, is_read;

		expected = runtime_integrity_expected.lookup(&which);
		told = runtime_integrity_told.lookup(&which);
		if (!expected || !told || !expected->length)
			break;
		is_read = runtime_integrity_word_holds(expected, &value);
		if (is_read *
		    runtime_integrity_word_is_new(told, value, runtime_integrity_word_differs(expected, value))) {
			found = which;
			break;
		}
	}
	krie_forget(&found, sizeof(found));
	return found;
}

static __always_inline void runtime_integrity_tell_word(u32 which, u8 trigger)
{
	struct runtime_integrity_expected *expected = runtime_integrity_expected.lookup(&which);
	struct runtime_integrity_told *told = runtime_integrity_told.lookup(&which);
	struct runtime_integrity_parameter_look *record;
	struct krie_answer answer = {};
	u64 value, differs;

	if (!expected || !told || !runtime_integrity_word_holds(expected, &value))
		return;
	differs = runtime_integrity_word_differs(expected, value);
	if (!runtime_integrity_word_is_new(told, value, differs))
		return; /* another CPU told it, or it is over */
	record = krie_reserve_runtime_integrity_parameter_look(&answer, 0);
	if (!record)
		return;
	krie_stamp(&record->header, &answer);
	record->word = which;
	record->address = expected->address;
	record->value = value ^ expected->flip;
	record->state =
	    RUNTIME_INTEGRITY_PARAMETER_LOOK_STATE_AGREES -
	    (RUNTIME_INTEGRITY_PARAMETER_LOOK_STATE_AGREES - RUNTIME_INTEGRITY_PARAMETER_LOOK_STATE_DIFFERS) * differs;
	record->trigger = trigger;
	told->value = value;
	told->differs = differs;
	krie_submit_runtime_integrity_parameter_look(record);
}

/* One that tells is enough, where several CPUs look at once. */
static __always_inline void runtime_integrity_tell_alone(u32 which, u8 trigger)
{
#ifdef KRIE_HAS_FETCH_ADD
	struct runtime_integrity_told *told = runtime_integrity_told.lookup(&which);

	if (!told)
		return;
	if (!__sync_fetch_and_add(&told->telling, 1))
		runtime_integrity_tell_word(which, trigger);
	__sync_fetch_and_add(&told->telling, -1);
#else
	runtime_integrity_tell_word(which, trigger);
#endif
}

/* Look, and tell the first that is new. Whether there was any. */
static __always_inline bool runtime_integrity_look(u8 trigger)
{
	u32 which = runtime_integrity_first_new();

	if (which >= RUNTIME_INTEGRITY_EXPECTED)
		return false;
	runtime_integrity_tell_alone(which, trigger);
	return true;
}

/* Each CPU's timer, as CPUs may go: one of them looks when it is due. Whoever it interrupts has nothing to do with what
 * it finds. */
int runtime_integrity_look_timer(void *ctx)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct krie_agent_state *agent;
	u32 zero = 0;
	u64 *due;

	agent = krie_agent.lookup(&zero);
	due = runtime_integrity_look_due.lookup(&zero);
	/* Whoever writes to it has the looks begin again, and does not end them. */
	if (!agent || !agent->armed || !due || *due - now <= 3 * RUNTIME_INTEGRITY_LOOK_NS)
		return 0;
	*due = now + RUNTIME_INTEGRITY_LOOK_NS + (((u64)bpf_get_prandom_u32() * 2 * RUNTIME_INTEGRITY_LOOK_NS) >> 32);
	if (runtime_integrity_look(RUNTIME_INTEGRITY_PARAMETER_LOOK_TRIGGER_TIMER))
		*due = now;
	return 0;
}

/* What the look is taken for that a tracepoint begins. Kernels that preempt themselves there may mix up two. */
BPF_PERCPU_ARRAY(runtime_integrity_look_trigger, u32, 1);
BPF_PROG_ARRAY(runtime_integrity_look_program, 1);

/* The look itself, once for all tracepoints: before may_goto the verifier goes through all words of each program. */
int runtime_integrity_look_then(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	u32 *trigger = runtime_integrity_look_trigger.lookup(&zero);

	if (trigger)
		runtime_integrity_look((u8)*trigger);
	return 0;
}

static __always_inline void runtime_integrity_look_for(struct bpf_raw_tracepoint_args *ctx, const u32 what)
{
	u32 zero = 0;
	u32 *trigger = runtime_integrity_look_trigger.lookup(&zero);

	if (!trigger)
		return;
	*trigger = what;
	runtime_integrity_look_program.call(ctx, 0);
}

/* module_load(module): it is about to be begun. */
int runtime_integrity_look_module(struct bpf_raw_tracepoint_args *ctx)
{
	if (krie_enter())
		runtime_integrity_look_for(ctx, RUNTIME_INTEGRITY_PARAMETER_LOOK_TRIGGER_MODULE);
	return 0;
}

/* sched_process_exec(task, old_pid, bprm) of a program that gives its caller another user or group. */
int runtime_integrity_look_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct file *file = KRIE_READ(linux_binprm, (struct linux_binprm *)ctx->args[2], file);
	struct inode *inode = KRIE_READ(file, file, f_inode);

	if (KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_SET_ID && krie_enter())
		runtime_integrity_look_for(ctx, RUNTIME_INTEGRITY_PARAMETER_LOOK_TRIGGER_EXEC);
	return 0;
}
