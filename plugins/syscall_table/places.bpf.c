/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What looks compare, and what they know of the kernel: maps that the agent fills (pieces.py, watch.py).
 */

#define SYSCALL_TABLE_SHORT 4 /* of a short one, such as a handler's first bytes */
#define SYSCALL_TABLE_AT_ONCE 48 /* pieces in one run: 32 runs for all, where a kernel allows 33 */

KRIE_STATE("array", u32, struct syscall_table_kernel, syscall_table_kernel, 1);

BPF_ARRAY(syscall_table_pieces, struct syscall_table_piece, SYSCALL_TABLE_PIECES);

KRIE_STATE("array", u32, struct syscall_table_mask, syscall_table_masks, SYSCALL_TABLE_MASKS);

KRIE_STATE("array", u32, struct syscall_table_sites, syscall_table_sites, SYSCALL_TABLE_SITES);

BPF_PERCPU_ARRAY(syscall_table_look, struct syscall_table_look, 3);
#define SYSCALL_TABLE_BY_TRACEPOINT 0
#define SYSCALL_TABLE_BY_TIMER 1
#define SYSCALL_TABLE_BY_RETURN 2

BPF_ARRAY(syscall_table_due, u64, 1); /* when the timer's next look is */

BPF_PROG_ARRAY(syscall_table_tracepoint_look, 1);
BPF_PROG_ARRAY(syscall_table_tracepoint_tell, 1);
BPF_PROG_ARRAY(syscall_table_timer_look, 1);
BPF_PROG_ARRAY(syscall_table_timer_tell, 1);
BPF_PROG_ARRAY(syscall_table_return_look, 1);
BPF_PROG_ARRAY(syscall_table_return_tell, 1);

/* What each thread loads: the module, and the code of that, until its init function is over. */
struct syscall_table_loading {
	u64 module, begin, end;
};
KRIE_FOUND("lru_hash", u64, struct syscall_table_loading, syscall_table_loading, 1024);

static __always_inline u64 syscall_table_within(u64 address, u64 begin, u64 end)
{
	return krie_less(address - begin, end - begin);
}

static __always_inline u64 syscall_table_target(struct syscall_table_kernel *kernel, u64 address)
{
	u64 in_text = syscall_table_within(address, kernel->text, kernel->text_end);
	u64 in_modules = (1 - in_text) * syscall_table_within(address, kernel->modules, kernel->modules_end);

	return in_text * SYSCALL_TABLE_HOOK_TARGET_KERNEL + in_modules * SYSCALL_TABLE_HOOK_TARGET_MODULE +
	       (1 - in_text - in_modules) * SYSCALL_TABLE_HOOK_TARGET_OTHER;
}
