/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What looks compare, and what they know of the kernel: maps that the agent fills (pieces.py, watch.py).
 */

#define SYSCALL_TABLE_TABLE 1 /* values of `where`: WHERE in events.py */
#define SYSCALL_TABLE_DISPATCH 2
#define SYSCALL_TABLE_HANDLER 3
#define SYSCALL_TABLE_ENTRY 4
#define SYSCALL_TABLE_IDT 5
#define SYSCALL_TABLE_POINTER 6

#define SYSCALL_TABLE_START 1 /* values of `trigger`: TRIGGERS in events.py */
#define SYSCALL_TABLE_TIMER 2

#define SYSCALL_TABLE_TO_KERNEL 1 /* values of `target`: TARGETS in events.py */
#define SYSCALL_TABLE_TO_MODULE 2
#define SYSCALL_TABLE_TO_OTHER 3
#define SYSCALL_TABLE_TO_NOTHING 4

#define SYSCALL_TABLE_WORDS 16 /* of a piece: PIECE_BYTES in events.py */
#define SYSCALL_TABLE_SHORT 4 /* of a short one, such as a handler's first bytes */
#define SYSCALL_TABLE_AT_ONCE 48 /* pieces in one run: 32 runs for all, where a kernel allows 33 */

/* What the agent knows of this kernel: `_kernel()` in watch.py. 0 where it is not known. */
struct syscall_table_kernel {
	u64 text, text_end;
	u64 modules, modules_end;
	u64 wait; /* ns: looks of the timer are so far apart and, at random, up to three times as far */
	u64 trampolines[3]; /* where functions return to that are traced */
	u64 dispatchers[16]; /* begin and end of the code that may call handlers */
};
KRIE_STATE("array", u32, struct syscall_table_kernel, syscall_table_kernel, 1);

/* What is compared: `_packed_piece()` in pieces.py. Length 0 ends them. */
struct syscall_table_piece {
	u64 address;
	u64 expected[SYSCALL_TABLE_WORDS]; /* the bytes at start */
	u64 seen[SYSCALL_TABLE_WORDS]; /* the bytes that were last told */
	u32 length;
	s32 number; /* table, idt: of its first slot or gate; handler: of the system call; -1: none */
	u32 mask; /* which of its bytes count: an index */
	u32 where;
	u32 abi;
	u32 sites; /* dispatch: an index, where its jumps are; 0: none */
	u32 start; /* bits of words that were not as they should be when the agent started */
	u32 ftrace; /* handler: 1 and the offset of the call that ftrace may make there; 0: none */
	u32 told_patched; /* whether it was told that another instruction stands in its place */
	u32 unused;
	u64 telling; /* by how many programs it is being told */
};
BPF_ARRAY(syscall_table_pieces, struct syscall_table_piece, 1536);

struct syscall_table_mask {
	u64 words[SYSCALL_TABLE_WORDS];
};
KRIE_STATE("array", u32, struct syscall_table_mask, syscall_table_masks, 512);

/* The jumps of a piece of a function that dispatches, by byte. */
struct syscall_table_sites {
	u64 mask[SYSCALL_TABLE_WORDS]; /* bytes of jumps */
	u8 start[8 * SYSCALL_TABLE_WORDS]; /* where the jump begins that this byte is part of */
	s16 number[8 * SYSCALL_TABLE_WORDS]; /* of the system call */
};
KRIE_STATE("array", u32, struct syscall_table_sites, syscall_table_sites, 256);

/* A look on its way, by the kind of program that takes it: those can interrupt one another on one CPU. */
struct syscall_table_look {
	u64 content[SYSCALL_TABLE_WORDS];
	u64 next; /* piece to look at */
	u64 trigger;
	u64 looks, unreadable;
};
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

static __always_inline u64 syscall_table_within(u64 address, u64 begin, u64 end)
{
	return krie_less(address - begin, end - begin);
}

static __always_inline u64 syscall_table_target(struct syscall_table_kernel *kernel, u64 address)
{
	u64 in_text = syscall_table_within(address, kernel->text, kernel->text_end);
	u64 in_modules = (1 - in_text) * syscall_table_within(address, kernel->modules, kernel->modules_end);

	return in_text * SYSCALL_TABLE_TO_KERNEL + in_modules * SYSCALL_TABLE_TO_MODULE +
	       (1 - in_text - in_modules) * SYSCALL_TABLE_TO_OTHER;
}
