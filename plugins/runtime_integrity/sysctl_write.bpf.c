/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Writes below /proc/sys.
 */

#define RUNTIME_INTEGRITY_E2BIG (-7) /* the text is longer than the field, which holds its start */

#define RUNTIME_INTEGRITY_SAME 2 /* of `change`, CHANGES in sysctl_write.py: lower is one less, higher one more */

#define RUNTIME_INTEGRITY_VALUE_BYTES 64 /* of the record's texts */

#define RUNTIME_INTEGRITY_SIGN (1ULL << 63)

/* What follows is without branches: the verifier would follow each way of them through the whole look-up. */

static __always_inline u64 runtime_integrity_positive(s64 number)
{
	return krie_less(RUNTIME_INTEGRITY_SIGN, number ^ RUNTIME_INTEGRITY_SIGN);
}

/* Whether a text is one number with blanks around it; `number` is 0 where it is anything else. */
static __always_inline u64 runtime_integrity_number(const char *text, u64 *number)
{
	long parsed = 0;
	long length = bpf_strtol(text, RUNTIME_INTEGRITY_VALUE_BYTES, 0, &parsed);
	u64 good = runtime_integrity_positive(length);
	u64 ended = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		u64 at = length + i;
		u64 letter;

		asm volatile("" : "+r"(at)); /* clang knows that the mask changes nothing; the verifier does not */
		letter = text[at & (RUNTIME_INTEGRITY_VALUE_BYTES - 1)];
		ended |= krie_equal(letter, 0);
		good &= ended | krie_equal(letter, '\n') | krie_equal(letter, ' ') | krie_equal(letter, '\t');
	}
	good &= ended;
	*number = parsed & (0 - good);
	return good;
}

static __always_inline u64 runtime_integrity_change(u64 new, u64 old)
{
	new ^= RUNTIME_INTEGRITY_SIGN;
	old ^= RUNTIME_INTEGRITY_SIGN;
	return RUNTIME_INTEGRITY_SAME + krie_less(old, new) - krie_less(new, old);
}

int runtime_integrity_sysctl(struct bpf_sysctl *ctx)
{
	struct runtime_integrity_sysctl_write_inline known = {};
	struct runtime_integrity_sysctl_write *record;
	struct krie_answer answer;
	u64 old_truncated;
	s64 length;
	int allow;

	if (!krie_enter() || !ctx->write)
		return KRIE_CGROUP_ALLOW;
	known.file_pos = ctx->file_pos;
	known.name_truncated = (u64)bpf_sysctl_get_name(ctx, known.name, sizeof(known.name), 0) >> 63;
	{ /* one text after the other, since the stack has 512 bytes */
		char text[RUNTIME_INTEGRITY_VALUE_BYTES] = {};

		length = bpf_sysctl_get_current_value(ctx, text, sizeof(text));
		old_truncated = krie_equal(length, RUNTIME_INTEGRITY_E2BIG);
		known.old_parsed = runtime_integrity_number(text, &known.old_int) & runtime_integrity_positive(length);
		known.old_int &= 0 - known.old_parsed;
		__builtin_memset(text, 0, sizeof(text));
		length = bpf_sysctl_get_new_value(ctx, text, sizeof(text));
		known.new_truncated = krie_equal(length, RUNTIME_INTEGRITY_E2BIG);
		known.length = length & (0 - runtime_integrity_positive(length));
		known.new_parsed = runtime_integrity_number(text, &known.new_int) & runtime_integrity_positive(length);
		known.new_int &= 0 - known.new_parsed;
	}
	known.change = (known.old_parsed & known.new_parsed) * runtime_integrity_change(known.new_int, known.old_int);
	answer = krie_decide_runtime_integrity_sysctl_write(&known, KRIE_CAN_REFUSE);
	allow = krie_cgroup_answer(&answer);
	record = krie_reserve_runtime_integrity_sysctl_write();
	if (!record)
		return allow;
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_sysctl_write(record, &known);
	record->old_truncated = old_truncated;
	bpf_sysctl_get_current_value(ctx, record->old, sizeof(record->old));
	bpf_sysctl_get_new_value(ctx, record->new, sizeof(record->new));
	krie_submit_runtime_integrity_sysctl_write(record);
	return allow;
}
