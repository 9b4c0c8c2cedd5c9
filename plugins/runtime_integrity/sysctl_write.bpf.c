/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Writes below /proc/sys.
 */

#define RUNTIME_INTEGRITY_E2BIG (-7) /* the text is longer than the field, which holds its start */

#define RUNTIME_INTEGRITY_NUMBER_BYTES 21 /* TMPBUFLEN - 1 in kernel/sysctl.c: a number this long is refused */

#define RUNTIME_INTEGRITY_SIGN (1ULL << 63)

/* Writes to kernel/sysctl_writes_strict that were let through since the start. */
BPF_ARRAY(runtime_integrity_strict_writes, u64, 1);
/* 1 more than these when the agent last found that it is 1; 0 where it is not, or was written meanwhile. */
KRIE_STATE("array", u32, u64, runtime_integrity_strict_at, 1);

/* What follows is without branches: the verifier would follow each way of them through the whole look-up. */

static __always_inline u64 runtime_integrity_positive(s64 number)
{
	return krie_less(RUNTIME_INTEGRITY_SIGN, number ^ RUNTIME_INTEGRITY_SIGN);
}

/* isspace() of the kernel, lib/ctype.c: \t to \r, blank, and the no-break space of Latin 1. */
static __always_inline u64 runtime_integrity_is_space(u64 letter)
{
	return krie_less(letter - '\t', 5) | krie_equal(letter & 0x7f, ' ');
}

/* How many blanks a text starts with. */
static __always_inline u64 runtime_integrity_blanks(const char *text)
{
	u64 all = 1, blanks = 0;

#pragma clang loop unroll(disable) /* or what is known of all letters would fill the stack */
	for (u64 i = krie_uncounted(); i < RUNTIME_INTEGRITY_VALUE_BYTES - 1 && KRIE_GOES_ON; i++) {
		all &= runtime_integrity_is_space((u8)text[i]);
		blanks += all;
	}
	return blanks;
}

/* A text as the kernel's handlers of numbers read it, and what is known of it. */
struct runtime_integrity_text {
	u64 length; /* more than RUNTIME_INTEGRITY_VALUE_BYTES where it is not all here */
	u64 blanks; /* that it starts with */
	u64 parsed; /* 1 where it starts with a number that the kernel takes */
	u64 number; /* that number, within the bounds of s64; else 0 */
};

/* As proc_get_long() does behind proc_skip_spaces(), kernel/sysctl.c, which is what proc_dointvec() and its relatives
 * call: it takes the first number, by C's rules for its base, if that is shorter than TMPBUFLEN - 1, does not overflow,
 * and is followed by nothing or by ' ', '\t' or '\n'; what comes behind is no matter to a sysctl of one number.
 * bpf_strtoul() and bpf_strtol() skip the same blanks and go on to the same _parse_integer(). They take the whole
 * array: a text ends with NUL. */
static __always_inline void runtime_integrity_parse(const char *text, struct runtime_integrity_text *found)
{
	unsigned long magnitude = 0;
	long negative = 0;
	s64 plain = bpf_strtoul(text, RUNTIME_INTEGRITY_VALUE_BYTES, 0, &magnitude);
	s64 minus = bpf_strtol(text, RUNTIME_INTEGRITY_VALUE_BYTES, 0, &negative);
	u64 is_plain = runtime_integrity_positive(plain);
	/* bpf_strtoul() refuses a sign, and bpf_strtol() what is not an s64. */
	u64 is_minus = (1 - is_plain) & runtime_integrity_positive(minus);
	u64 end = (plain & (0 - is_plain)) | (minus & (0 - is_minus));
	u64 at = end, letter, too_large = magnitude >> 63;

	asm volatile("" : "+r"(at)); /* clang knows that the mask changes nothing; the verifier does not */
	letter = (u8)text[at & (RUNTIME_INTEGRITY_VALUE_BYTES - 1)];
	found->blanks = runtime_integrity_blanks(text);
	found->parsed = (is_plain | is_minus) & krie_less(end - found->blanks, RUNTIME_INTEGRITY_NUMBER_BYTES) &
			(krie_equal(end, found->length) | krie_equal(letter, ' ') | krie_equal(letter, '\t') |
			 krie_equal(letter, '\n'));
	magnitude = (magnitude | (0 - too_large)) & ~(too_large << 63); /* no s64: the largest one */
	found->number = ((magnitude & (0 - is_plain)) | (negative & (0 - is_minus))) & (0 - found->parsed);
}

/* Whether the kernel's handlers of numbers change nothing by this write: it holds but blanks, or it is not at the
 * file's start, which they ignore as long as kernel.sysctl_writes_strict is 1. */
static __always_inline u64 runtime_integrity_is_ignored(struct runtime_integrity_text *text, u64 file_pos)
{
	u32 zero = 0;
	u64 *writes = runtime_integrity_strict_writes.lookup(&zero);
	u64 *found_at = runtime_integrity_strict_at.lookup(&zero);
	u64 strict = writes && found_at ? krie_equal(*found_at, *writes + 1) : 0;

	return krie_equal(text->blanks, text->length) * krie_truth(text->length) | (strict & krie_truth(file_pos));
}

static __always_inline u64 runtime_integrity_compared(u64 new, u64 old)
{
	new ^= RUNTIME_INTEGRITY_SIGN;
	old ^= RUNTIME_INTEGRITY_SIGN;
	return RUNTIME_INTEGRITY_SYSCTL_WRITE_CHANGE_SAME + krie_less(old, new) - krie_less(new, old);
}

/* What the write makes of the value: a number of CHANGES. */
static __always_inline u64 runtime_integrity_change(struct runtime_integrity_sysctl_write_inline *known, u64 ignored)
{
	u64 compared =
	    (known->old_parsed & known->new_parsed) * runtime_integrity_compared(known->new_int, known->old_int);

	compared |= (1 - known->new_parsed) * RUNTIME_INTEGRITY_SYSCTL_WRITE_CHANGE_UNREAD;
	return ignored * RUNTIME_INTEGRITY_SYSCTL_WRITE_CHANGE_NONE + (1 - ignored) * compared;
}

/* Whether a name, which is followed by NULs, is this one. It is as long as eight times the words that are compared. */
#define RUNTIME_INTEGRITY_IS_NAME(name, text)                                                                          \
	({                                                                                                             \
		u64 krie_differs = 0;                                                                                  \
		_Pragma("unroll") for (int krie_i = 0; krie_i < sizeof(text) / 4; krie_i++) krie_differs |=            \
		    ((const u32 *)(name))[krie_i] ^ ((text)[4 * krie_i] | (text)[4 * krie_i + 1] << 8 |                \
						     (text)[4 * krie_i + 2] << 16 | (text)[4 * krie_i + 3] << 24);     \
		krie_equal(krie_differs, 0);                                                                           \
	})

/* In this time the kernel has done what a write of kernel/ftrace_enabled asks for: it changes the start of each
 * function that is traced, and waits for others to leave them. */
#define RUNTIME_INTEGRITY_SWITCH_NS 10000000000ULL

/* The write goes on to the kernel. Of the agent's own, too, and before it is armed: `change` is 0 then. */
static __always_inline void runtime_integrity_let_through(const char *name, u64 change)
{
	u64 changes = 1 - (krie_equal(change, RUNTIME_INTEGRITY_SYSCTL_WRITE_CHANGE_SAME) |
			   krie_equal(change, RUNTIME_INTEGRITY_SYSCTL_WRITE_CHANGE_NONE));
	u32 zero = 0;
	u64 *writes = runtime_integrity_strict_writes.lookup(&zero);

	if (writes)
		__sync_fetch_and_add(writes, changes & RUNTIME_INTEGRITY_IS_NAME(name, "kernel/sysctl_writes_strict"));
	/* Switched off, programs at functions and security hooks do not run; switched on, they do not know what
	 * happened. */
	if (changes & RUNTIME_INTEGRITY_IS_NAME(name, "kernel/ftrace_enabled\0\0"))
		runtime_integrity_blind_until(bpf_ktime_get_boot_ns() + RUNTIME_INTEGRITY_SWITCH_NS);
}

static __always_inline int runtime_integrity_allow(struct krie_answer *answer,
						   struct runtime_integrity_sysctl_write_inline *known)
{
	int allow = krie_cgroup_answer(answer);

	if (allow == KRIE_CGROUP_ALLOW)
		runtime_integrity_let_through(known->name, known->change);
	return allow;
}

int runtime_integrity_sysctl(struct bpf_sysctl *ctx)
{
	struct runtime_integrity_sysctl_write_inline known = {};
	struct runtime_integrity_sysctl_write *record;
	struct krie_answer answer;
	bool entered = krie_enter();
	u64 old_truncated, ignored;
	s64 length;
	int allow;

	if (!ctx->write)
		return KRIE_CGROUP_ALLOW;
	known.name_truncated = (u64)bpf_sysctl_get_name(ctx, known.name, sizeof(known.name), 0) >> 63;
	if (!entered) {
		runtime_integrity_let_through(known.name, 0);
		return KRIE_CGROUP_ALLOW;
	}
	known.file_pos = ctx->file_pos;
	{ /* one text after the other, since the stack has 512 bytes */
		char text[RUNTIME_INTEGRITY_VALUE_BYTES] = {};
		struct runtime_integrity_text found = {};

		length = bpf_sysctl_get_current_value(ctx, text, sizeof(text));
		old_truncated = krie_equal(length, RUNTIME_INTEGRITY_E2BIG);
		found.length = length;
		runtime_integrity_parse(text, &found);
		known.old_parsed = found.parsed & (old_truncated | runtime_integrity_positive(length));
		known.old_int = found.number & (0 - known.old_parsed);
		__builtin_memset(text, 0, sizeof(text));
		length = bpf_sysctl_get_new_value(ctx, text, sizeof(text));
		known.new_truncated = krie_equal(length, RUNTIME_INTEGRITY_E2BIG);
		known.length = length & (0 - runtime_integrity_positive(length));
		found.length = length; /* an error is not a place in the text, and more than there is of it */
		runtime_integrity_parse(text, &found);
		known.new_parsed = found.parsed & (known.new_truncated | runtime_integrity_positive(length));
		known.new_int = found.number & (0 - known.new_parsed);
		ignored = runtime_integrity_is_ignored(&found, known.file_pos);
	}
	known.change = runtime_integrity_change(&known, ignored);
	/* Threads of the kernel's own write here only for others, such as who made a sysctl the file behind a disk of
	 * LIO's. */
	answer = krie_decide_runtime_integrity_sysctl_write(&known, KRIE_CAN_REFUSE | KRIE_CAN_REFUSE_KERNEL);
	record = krie_reserve_runtime_integrity_sysctl_write(&answer, KRIE_CAN_REFUSE | KRIE_CAN_REFUSE_KERNEL);
	if (!record)
		return runtime_integrity_allow(&answer, &known);
	allow = runtime_integrity_allow(&answer, &known);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_sysctl_write(record, &known);
	record->old_truncated = old_truncated;
	bpf_sysctl_get_current_value(ctx, record->old, sizeof(record->old));
	bpf_sysctl_get_new_value(ctx, record->new, sizeof(record->new));
	krie_submit_runtime_integrity_sysctl_write(record);
	return allow;
}
