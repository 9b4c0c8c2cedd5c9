/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What is configured, and what only this machine's agent knows: written by it before anything is sent.
 */

struct runtime_integrity_settings { /* tell() in settings.py */
	u32 map_access; /* 1: calls that read or write map elements are events */
	u32 kprobe_type; /* types of performance events that sysfs gives; 0: none */
	u32 uprobe_type;
};
BPF_ARRAY(runtime_integrity_settings, struct runtime_integrity_settings, 1);

static __always_inline struct runtime_integrity_settings *runtime_integrity_settings_now(void)
{
	u32 zero = 0;

	return runtime_integrity_settings.lookup(&zero);
}
