/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Writes below /proc/sys.
 */

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
	struct krie_answer answer;
	s64 number = 0;
	long length;
	int allow;

	if (!krie_enter(KRIE_PROGRAM_runtime_integrity_sysctl) || !ctx->write)
		return KRIE_CGROUP_ALLOW;
	answer = krie_decide(KRIE_KIND_RUNTIME_INTEGRITY_SYSCTL_WRITE);
	allow = krie_cgroup_answer(&answer);
	record = krie_reserve_runtime_integrity_sysctl_write(KRIE_PROGRAM_runtime_integrity_sysctl);
	if (!record)
		return allow;
	krie_stamp(&record->header, &answer);
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
	return allow;
}
#endif
