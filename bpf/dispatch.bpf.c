/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The one program at the entry of every system call. It goes on to the program that some sensor has for this one, if
 * any has. Pasted behind the prelude; krie/kernel/dispatch.py fills the maps.
 *
 * Where several sensors want the same system call, this is loaded and attached once for each of them: a layer has at
 * most one program a system call. None can keep another one from running.
 */

struct krie_wanted {
	u8 layers[KRIE_SYSCALLS]; /* by number, native or not: in which layers any program waits for it */
};
KRIE_STATE("array", u32, struct krie_wanted, krie_wanted, 1);

/* By layer, then native or ia32, then number. */
BPF_PROG_ARRAY(krie_syscalls, KRIE_LAYERS * 2 * KRIE_SYSCALLS);

/* sys_enter(regs, number) */
int krie_dispatch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 number = ctx->args[1] & ~(u64)KRIE_X32_BIT;
	u32 zero = 0, layer = krie_self() >> 32;
	struct krie_wanted *wanted;

	if (number >= KRIE_SYSCALLS)
		return 0;
	wanted = krie_wanted.lookup(&zero);
	if (!wanted || !(wanted->layers[number] >> layer & 1))
		return 0;
	krie_syscalls.call(ctx, (layer * 2 + krie_compat(krie_current())) * KRIE_SYSCALLS + number);
	return 0;
}
