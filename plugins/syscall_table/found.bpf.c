/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What a look found: what of a piece differs, what is decided about it, and how it is told.
 */

#define SYSCALL_TABLE_COMING 1 /* MODULE_STATE_COMING */

/* What of a piece is told: one slot, jump, gate, or all of it. */
struct syscall_table_found {
	u64 first, bytes; /* the bytes of the piece that it takes */
	u64 was, now; /* addresses, 0 where there are none */
	u64 word; /* the first one that differs */
};

/* The first byte that differs; 8 * SYSCALL_TABLE_WORDS where none does. Without a branch, as the rest. */
static __always_inline u64 syscall_table_first(struct syscall_table_piece *piece, struct syscall_table_look *look,
					       u64 *mask)
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

	return syscall_table_at(words, byte) >> shift | (krie_truth(shift) * syscall_table_at(words, byte + 8))
							    << ((64 - shift) & 63);
}

static __always_inline void syscall_table_find_site(struct syscall_table_piece *piece, struct syscall_table_look *look,
						    struct syscall_table_found *found,
						    struct syscall_table_hook_inline *known)
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
	known->where = SYSCALL_TABLE_HOOK_WHERE_DISPATCH;
	found->first = start;
	found->bytes = 6;
	found->word = start >> 3;
	known->number = (s64)sites->number[start];
	found->was = syscall_table_leads(syscall_table_unaligned(piece->expected, start), piece->address + start);
	found->now = syscall_table_leads(syscall_table_unaligned(look->content, start), piece->address + start);
}

static __always_inline void syscall_table_find(struct syscall_table_piece *piece, struct syscall_table_look *look,
					       u64 *mask, struct syscall_table_found *found,
					       struct syscall_table_hook_inline *known)
{
	u64 byte = syscall_table_first(piece, look, mask);

	known->where = piece->where;
	known->number = (s64)piece->number;
	found->word = (byte >> 3) & (SYSCALL_TABLE_WORDS - 1);
	found->bytes = 8 * SYSCALL_TABLE_WORDS;
	if (piece->where == SYSCALL_TABLE_HOOK_WHERE_TABLE || piece->where == SYSCALL_TABLE_HOOK_WHERE_POINTER) {
		found->first = 8 * found->word;
		found->bytes = 8;
		known->number += found->word * krie_equal(piece->where, SYSCALL_TABLE_HOOK_WHERE_TABLE);
		found->was = syscall_table_at(piece->expected, found->first);
		found->now = syscall_table_at(look->content, found->first);
	} else if (piece->where == SYSCALL_TABLE_HOOK_WHERE_IDT) {
		found->first = 16 * (found->word >> 1);
		found->bytes = 16;
		known->number += found->word >> 1;
		found->was = syscall_table_gate(syscall_table_at(piece->expected, found->first),
						syscall_table_at(piece->expected, found->first + 8));
		found->now = syscall_table_gate(syscall_table_at(look->content, found->first),
						syscall_table_at(look->content, found->first + 8));
	} else if (piece->sites) {
		found->first = byte & (8 * SYSCALL_TABLE_WORDS - 1);
		syscall_table_find_site(piece, look, found, known);
	}
}

/* 1 where all bytes that count, of what was found, are as at start. */
static __always_inline u64 syscall_table_restored(struct syscall_table_piece *piece, struct syscall_table_look *look,
						  u64 *mask, struct syscall_table_found *found)
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
						   struct syscall_table_found *found, u64 where)
{
	volatile u8 *seen = (volatile u8 *)piece->seen, *content = (volatile u8 *)look->content;
	u64 first = found->first;

	if (where == SYSCALL_TABLE_HOOK_WHERE_DISPATCH) {
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

/* 1 where an address lies in the module whose init function the current thread runs, or has just left. Who changed
 * something on another CPU meanwhile leads it to code of his own. */
static __always_inline u64 syscall_table_own(struct syscall_table_look *look, u64 address)
{
#ifdef KRIE_HAS_module__state
	u64 thread = bpf_get_current_pid_tgid();
	struct syscall_table_loading *loading = syscall_table_loading.lookup(&thread);

	/* At module_load nothing of it has run. */
	if (!loading || look->trigger == SYSCALL_TABLE_HOOK_TRIGGER_MODULE_LOAD)
		return 0;
	return syscall_table_within(address, loading->begin, loading->end) *
	       krie_equal(KRIE_READ(module, loading->module, state), SYSCALL_TABLE_COMING);
#else
	return 0;
#endif
}

/* Decide about, and tell, one difference of the piece that a look stopped at. `can`: 0 where the process at hand has
 * nothing to do with it. */
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
	u64 patched, started, older;

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
	if (!mask || !syscall_table_differs(piece, look, mask))
		return; /* another CPU told of it between this one's look and the claim */
	patched = syscall_table_patched(piece, look);
	syscall_table_find(piece, look, mask->words, &found, &known);
	known.target = krie_truth(found.now) * syscall_table_target(kernel, found.now) +
		       (1 - krie_truth(found.now)) * SYSCALL_TABLE_HOOK_TARGET_NONE;
	started = (piece->start >> (found.word & 31)) & 1;
	known.abi = piece->abi;
	/* What an earlier look found, and had no record for, is nobody's who runs now. */
	older = ((piece->older >> (found.word & 31)) & 1) * (1 - started);
	known.trigger = look->trigger + (SYSCALL_TABLE_HOOK_TRIGGER_START - look->trigger) * started +
			(SYSCALL_TABLE_HOOK_TRIGGER_TIMER - look->trigger) * older;
	if (known.where == SYSCALL_TABLE_HOOK_WHERE_DISPATCH) /* its words are others', too */
		known.restored = krie_truth(found.now) * krie_equal(found.now, found.was);
	else
		known.restored = (1 - patched) * syscall_table_restored(piece, look, mask->words, &found);
	if (can)
		known.own_module = syscall_table_own(look, found.now) * (1 - started) * (1 - older);
	krie_forget(&known, sizeof(known));
	krie_forget(&found, sizeof(found));
	if (can && !started && !older)
		answer = krie_decide_syscall_table_hook(&known, can);
	record = krie_reserve_syscall_table_hook(&answer, can);
	if (!record) {
		piece->older |= 1U << (found.word & 31);
		return;
	}
	krie_stamp(&record->header, &answer);
	krie_put_syscall_table_hook(record, &known);
	record->address = piece->address + found.first;
	record->was = found.was;
	record->now = found.now;
	record->piece = look->next - 1;
	__builtin_memcpy(record->content, look->content, sizeof(record->content));
	krie_submit_syscall_table_hook(record);
	syscall_table_remember(piece, look, &found, known.where);
	piece->told_patched = patched;
	piece->start &= ~(1U << (found.word & 31));
	piece->older &= ~(1U << (found.word & 31));
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

int syscall_table_tell_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_TRACEPOINT, KRIE_CAN_KILL);
	syscall_table_tracepoint_look.call(ctx, 0);
	return 0;
}

int syscall_table_tell_return(struct pt_regs *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_RETURN, KRIE_CAN_KILL);
	syscall_table_return_look.call(ctx, 0);
	return 0;
}

int syscall_table_tell_time(void *ctx)
{
	syscall_table_tell_claimed(SYSCALL_TABLE_BY_TIMER, 0);
	syscall_table_timer_look.call(ctx, 0);
	return 0;
}
