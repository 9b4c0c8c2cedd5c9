/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * A look: all pieces of what system calls pass are compared with what they were. Some pieces a run, one run after the other by
 * a tail call, so that the verifier looks at one and every kernel can: bpf_loop() needs 5.17 (e6f2dd0f8067).
 *
 * A piece that differs is handed to another program, which finds out what in it differs, decides, and tells one thing of it.
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
#define SYSCALL_TABLE_NOT_SITE 0xff

/* What the agent knows of this kernel: `Kernel.packed()` in places.py. 0 where it is not known. */
struct syscall_table_kernel {
	u64 text, text_end;
	u64 modules, modules_end;
	u64 wait; /* ns: looks of the timer are so far apart and, at random, up to twice as far */
	u64 trampolines[3]; /* where functions return to that are traced */
	u64 dispatchers[16]; /* begin and end of the code that may call handlers */
};
BPF_ARRAY(syscall_table_kernel, struct syscall_table_kernel, 1);

/* What is compared: `Piece.packed()` in places.py. Length 0 ends them. */
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
BPF_ARRAY(syscall_table_masks, struct syscall_table_mask, 512);

/* The jumps of a piece of a function that dispatches, by byte. */
struct syscall_table_sites {
	u64 mask[SYSCALL_TABLE_WORDS]; /* bytes of jumps */
	u8 start[8 * SYSCALL_TABLE_WORDS]; /* where the jump begins that this byte is part of */
	s16 number[8 * SYSCALL_TABLE_WORDS]; /* of the system call */
};
BPF_ARRAY(syscall_table_sites, struct syscall_table_sites, 256);

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

#define SYSCALL_TABLE_END 0
#define SYSCALL_TABLE_MORE 1
#define SYSCALL_TABLE_DIFFERS 2

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

/* Whether something else stands where ftrace's call is than a nop, a call, or the breakpoint of one that is being changed. It
 * lies in the first or, behind an endbr, in the first and second word. */
static __always_inline u64 syscall_table_patched(struct syscall_table_piece *piece, struct syscall_table_look *look)
{
	u64 there = piece->ftrace;
	u64 opcode = (look->content[0] >> ((8 * (there - 1)) & 63)) & 0xff;

	return krie_truth(there) * (1 - (krie_equal(opcode, 0x0f) | krie_equal(opcode, 0xe8) | krie_equal(opcode, 0xcc)));
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
	for (u32 count = 0; count < SYSCALL_TABLE_AT_ONCE; count++) {
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

/* What of a piece is told: one slot, jump, gate, or all of it. */
struct syscall_table_found {
	u64 first, bytes; /* the bytes of the piece that it takes */
	u64 was, now; /* addresses, 0 where there are none */
	u64 number;
	u64 where, target;
	u64 word; /* the first one that differs */
};

/* The first byte that differs; 8 * SYSCALL_TABLE_WORDS where none does. Without a branch, as the rest. */
static __always_inline u64 syscall_table_first(struct syscall_table_piece *piece, struct syscall_table_look *look, u64 *mask)
{
	u64 index = SYSCALL_TABLE_WORDS, difference = 0, byte = 0;

#pragma unroll
	for (int word = SYSCALL_TABLE_WORDS - 1; word >= 0; word--) {
		u64 other = (look->content[word] ^ piece->seen[word]) & mask[word];
		u64 differs = krie_truth(other);

		index += (word - index) * differs;
		difference += (other - difference) * differs;
	}
	difference &= 0 - difference; /* its lowest bit */
#pragma unroll
	for (int shift = 8; shift < 64; shift += 8)
		byte += krie_truth(difference >> shift);
	return 8 * index + byte;
}

/* Where a jump or call of 32 bits leads; 0 where these 8 bytes at `address` begin with another instruction. */
static __always_inline u64 syscall_table_leads(u64 code, u64 address)
{
	u64 near = krie_equal(code & 0xfe, 0xe8); /* e8, e9 */
	u64 conditional = krie_equal(code & 0xf0ff, 0x800f); /* 0f 80 to 0f 8f */
	s64 by_near = (s64)(s32)(code >> 8), by_conditional = (s64)(s32)(code >> 16);

	return near * (address + 5 + by_near) + conditional * (address + 6 + by_conditional);
}

static __always_inline u64 syscall_table_gate(u64 low, u64 high)
{
	return (low & 0xffff) | ((low >> 32) & 0xffff0000) | (high << 32);
}

static __always_inline u64 syscall_table_at(u64 *words, u64 byte)
{
	return words[(byte >> 3) & (SYSCALL_TABLE_WORDS - 1)];
}

/* 8 bytes from any of them on; those behind the piece's end are not right. */
static __always_inline u64 syscall_table_unaligned(u64 *words, u64 byte)
{
	u64 shift = 8 * (byte & 7);

	return syscall_table_at(words, byte) >> shift | (krie_truth(shift) * syscall_table_at(words, byte + 8)) << ((64 - shift) & 63);
}

static __always_inline void syscall_table_find_site(struct syscall_table_piece *piece, struct syscall_table_look *look,
						    struct syscall_table_found *found)
{
	u32 which = piece->sites;
	struct syscall_table_sites *sites = syscall_table_sites.lookup(&which);
	u64 byte, start;

	if (!which || !sites)
		return;
	byte = syscall_table_first(piece, look, sites->mask);
	if (byte >= 8 * SYSCALL_TABLE_WORDS)
		return;
	start = sites->start[byte & (8 * SYSCALL_TABLE_WORDS - 1)] & (8 * SYSCALL_TABLE_WORDS - 1);
	found->where = SYSCALL_TABLE_DISPATCH;
	found->first = start;
	found->bytes = 6;
	found->word = start >> 3;
	found->number = (s64)sites->number[start];
	found->was = syscall_table_leads(syscall_table_unaligned(piece->expected, start), piece->address + start);
	found->now = syscall_table_leads(syscall_table_unaligned(look->content, start), piece->address + start);
}

static __always_inline void syscall_table_find(struct syscall_table_piece *piece, struct syscall_table_look *look, u64 *mask,
					       struct syscall_table_found *found)
{
	u64 byte = syscall_table_first(piece, look, mask);

	found->where = piece->where;
	found->number = (s64)piece->number;
	found->word = (byte >> 3) & (SYSCALL_TABLE_WORDS - 1);
	found->bytes = 8 * SYSCALL_TABLE_WORDS;
	if (piece->where == SYSCALL_TABLE_TABLE || piece->where == SYSCALL_TABLE_POINTER) {
		found->first = 8 * found->word;
		found->bytes = 8;
		found->number += found->word * krie_equal(piece->where, SYSCALL_TABLE_TABLE);
		found->was = syscall_table_at(piece->expected, found->first);
		found->now = syscall_table_at(look->content, found->first);
	} else if (piece->where == SYSCALL_TABLE_IDT) {
		found->first = 16 * (found->word >> 1);
		found->bytes = 16;
		found->number += found->word >> 1;
		found->was = syscall_table_gate(syscall_table_at(piece->expected, found->first),
						syscall_table_at(piece->expected, found->first + 8));
		found->now = syscall_table_gate(syscall_table_at(look->content, found->first),
						syscall_table_at(look->content, found->first + 8));
	} else if (piece->sites) {
		found->first = byte & (8 * SYSCALL_TABLE_WORDS - 1);
		syscall_table_find_site(piece, look, found);
	}
}

/* 1 where all bytes that count, of what was found, are as at start. Of a jump more is compared than it has: two that follow
 * each other are told as restored with the second. */
static __always_inline u64 syscall_table_restored(struct syscall_table_piece *piece, struct syscall_table_look *look, u64 *mask,
						  struct syscall_table_found *found)
{
	u64 difference = 0;

#pragma unroll
	for (int word = 0; word < SYSCALL_TABLE_WORDS; word++) {
		u64 begin = krie_less(8 * word + 7, found->first); /* it lies before */
		u64 behind = 1 - krie_less(8 * word, found->first + found->bytes);

		difference |= (look->content[word] ^ piece->expected[word]) & mask[word] & ((begin | behind) - 1);
	}
	return 1 - krie_truth(difference);
}

/* Remember what is told: it is not told again. */
static __always_inline void syscall_table_remember(struct syscall_table_piece *piece, struct syscall_table_look *look,
						   struct syscall_table_found *found)
{
	volatile u8 *seen = (volatile u8 *)piece->seen, *content = (volatile u8 *)look->content;
	u64 first = found->first;

	if (found->where == SYSCALL_TABLE_DISPATCH) {
#pragma unroll
		for (int byte = 0; byte < 6; byte++)
			seen[(first + byte) & (8 * SYSCALL_TABLE_WORDS - 1)] =
				content[(first + byte) & (8 * SYSCALL_TABLE_WORDS - 1)];
		return;
	}
#pragma unroll
	for (int word = 0; word < SYSCALL_TABLE_WORDS; word++) {
		u64 inside = 1 - krie_less(8 * word, first);

		inside *= krie_less(8 * word, first + found->bytes);
		piece->seen[word] += (look->content[word] - piece->seen[word]) * inside;
	}
}

/* Decide about, and tell, one difference of the piece that a look stopped at. `can`: 0 where the process at hand has nothing to
 * do with it. */
static __always_inline void syscall_table_tell(const u32 way, const u32 can)
{
	struct syscall_table_hook_inline known = {};
	struct syscall_table_found found = {};
	struct syscall_table_kernel *kernel;
	struct syscall_table_piece *piece;
	struct syscall_table_hook *record;
	struct syscall_table_look *look;
	struct syscall_table_mask *mask;
	struct krie_answer answer = {};
	u32 index = way, zero = 0, which;
	u64 patched, started;

	look = syscall_table_look.lookup(&index);
	kernel = syscall_table_kernel.lookup(&zero);
	if (!look || !kernel)
		return;
	which = look->next - 1;
	piece = syscall_table_pieces.lookup(&which);
	if (!piece)
		return;
	which = piece->mask;
	mask = syscall_table_masks.lookup(&which);
	if (!mask)
		return;
	patched = syscall_table_patched(piece, look);
	syscall_table_find(piece, look, mask->words, &found);
	found.target = krie_truth(found.now) * syscall_table_target(kernel, found.now) +
		       (1 - krie_truth(found.now)) * SYSCALL_TABLE_TO_NOTHING;
	started = (piece->start >> (found.word & 31)) & 1;
	known.number = found.number;
	known.where = found.where;
	known.abi = piece->abi;
	known.trigger = look->trigger + (SYSCALL_TABLE_START - look->trigger) * started;
	known.target = found.target;
	known.restored = (1 - patched) * syscall_table_restored(piece, look, mask->words, &found);
	krie_forget(&known, sizeof(known));
	krie_forget(&found, sizeof(found));
	if (can && !started)
		answer = krie_decide_syscall_table_hook(&known, can);
	record = krie_reserve_syscall_table_hook();
	if (!record)
		return;
	krie_stamp(&record->header, &answer);
	krie_put_syscall_table_hook(record, &known);
	record->address = piece->address + found.first;
	record->was = found.was;
	record->now = found.now;
	record->piece = look->next - 1;
	__builtin_memcpy(record->content, look->content, sizeof(record->content));
	krie_submit_syscall_table_hook(record);
	syscall_table_remember(piece, look, &found);
	piece->told_patched = patched;
	piece->start &= ~(1U << (found.word & 31));
	look->next -= 1; /* there may be more of it */
}

/* Begin to tell; false where another CPU, or who is interrupted, tells of this piece already. */
static __always_inline bool syscall_table_claim(const u32 way)
{
#ifdef KRIE_HAS_FETCH_ADD
	u32 index = way, which;
	struct syscall_table_look *look = syscall_table_look.lookup(&index);
	struct syscall_table_piece *piece;

	if (!look)
		return false;
	which = look->next - 1;
	piece = syscall_table_pieces.lookup(&which);
	if (!piece)
		return false;
	if (__sync_fetch_and_add(&piece->telling, 1)) {
		__sync_fetch_and_add(&piece->telling, -1);
		return false;
	}
#endif
	return true;
}

static __always_inline void syscall_table_release(u64 which_piece)
{
#ifdef KRIE_HAS_FETCH_ADD
	u32 which = which_piece;
	struct syscall_table_piece *piece = syscall_table_pieces.lookup(&which);

	if (piece)
		__sync_fetch_and_add(&piece->telling, -1);
#endif
}

static __always_inline void syscall_table_tell_claimed(const u32 way, const u32 can)
{
	u32 index = way;
	struct syscall_table_look *look = syscall_table_look.lookup(&index);
	u64 which;

	if (!look || !syscall_table_claim(way))
		return;
	which = look->next - 1;
	syscall_table_tell(way, can);
	syscall_table_release(which);
}

/* Tracepoints: initcall_finish, module_load, module_free. */
int syscall_table_at_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_enter() || !syscall_table_begin(SYSCALL_TABLE_BY_TRACEPOINT, krie_self() >> 32))
		return 0;
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
	return 0;
}

int syscall_table_tell_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_TRACEPOINT, KRIE_CAN_KILL);
	syscall_table_tracepoint_look.call(ctx, 0);
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

int syscall_table_tell_return(struct pt_regs *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_RETURN, KRIE_CAN_KILL);
	syscall_table_return_look.call(ctx, 0);
	return 0;
}

/* The timer: each CPU has one that comes more often than a look is due, so that nobody knows when and where the next is, and
 * CPUs may go. Whoever it interrupts has nothing to do with what it finds. */
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
	*due = now + kernel->wait + (((u64)bpf_get_prandom_u32() * kernel->wait) >> 32);
	if (syscall_table_begin(SYSCALL_TABLE_BY_TIMER, SYSCALL_TABLE_TIMER))
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

int syscall_table_tell_time(void *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_TIMER, 0);
	syscall_table_timer_look.call(ctx, 0);
	return 0;
}
