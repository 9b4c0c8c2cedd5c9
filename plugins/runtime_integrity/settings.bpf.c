/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What is configured, and what only this machine's agent knows: written by it before anything is sent.
 */

#define RUNTIME_INTEGRITY_OTHERS_WRITE 022 /* bits of a file's mode: its group or everybody may write */

KRIE_STATE("array", u32, struct runtime_integrity_settings, runtime_integrity_settings, 1);

static __always_inline struct runtime_integrity_settings *runtime_integrity_settings_now(void)
{
	u32 zero = 0;

	return runtime_integrity_settings.lookup(&zero);
}

/* Since when what threads do is followed without a break, in ns since boot. What was noted before that may be out of
 * date by legal changes that nobody saw: it is renewed, and not judged. */
BPF_ARRAY(runtime_integrity_followed_since, u64, 1);

static __always_inline u64 runtime_integrity_followed(void)
{
	u32 zero = 0;
	u64 *since = runtime_integrity_followed_since.lookup(&zero);

	return since ? *since : ~0ULL;
}

/* Nothing that is noted before `time` is to be judged. */
static __always_inline void runtime_integrity_blind_until(u64 time)
{
	u32 zero = 0;
	u64 *since = runtime_integrity_followed_since.lookup(&zero);

	if (since && *since < time)
		*since = time;
}
