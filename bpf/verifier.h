/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What spares the verifier work: what it shall know, and forget, and numbers computed without a branch. Included (not
 * pasted), like krie.h.
 */
#ifndef KRIE_VERIFIER_H
#define KRIE_VERIFIER_H

/* Have the verifier forget what it knows of these bytes of the stack, which stay as they are: it then looks once at
 * what comes, and not once for each way that led here. A helper that might write them is called with a size that the
 * verifier takes for up to `size`, and that is 0. They are not really read and written back: an attacker who enters the
 * kernel on a stack of user memory has our programs run on that stack, where the helper that reads kernel memory
 * refuses, and clears what it should have filled. For numbers; for what is about to be decided or told, and not for
 * what runs all the time. */
static __always_inline void krie_forget(void *bytes, const __u32 size)
{
	__u64 none = bpf_ktime_get_ns() >> 63; /* for 292 years */

	asm volatile("" : "+r"(none));
	bpf_probe_read_kernel(bytes, none * size, bytes);
}

/* Last in the condition of a loop: the verifier then looks two or three times at what the loop does, and not once for
 * each round, since this instruction ends any loop at last (may_goto, since 011832b97b31). It must not know the number
 * of the round: count from krie_uncounted(), which must still end the loop long before. Older kernels look at each
 * round, by a number that they know. Takes up to 16 bytes of stack beside the program's own, which together must stay
 * within 512 (6ebc5030e0c5). */
#ifdef KRIE_HAS_bpf_verifier_state__may_goto_depth
#define KRIE_ENDS_AT_LAST true
#define KRIE_GOES_ON                                                                                                   \
	({                                                                                                             \
		__label__ krie_ends, krie_goes_on;                                                                     \
		bool krie_on = true;                                                                                   \
		asm volatile goto("1:.byte 0xe5; .byte 0; .long ((%l[krie_ends] - 1b - 8) / 8) & 0xffff; .short 0"     \
				  :                                                                                    \
				  :                                                                                    \
				  :                                                                                    \
				  : krie_ends);                                                                        \
		goto krie_goes_on;                                                                                     \
	krie_ends:                                                                                                     \
		krie_on = false;                                                                                       \
	krie_goes_on:;                                                                                                 \
		krie_on;                                                                                               \
	})
#else
#define KRIE_ENDS_AT_LAST false
#define KRIE_GOES_ON true
#endif

/* 0, which the verifier takes for up to 16383: jiffies since boot do not reach 2^50. */
static __always_inline __u64 krie_uncounted(void)
{
#ifdef KRIE_HAS_bpf_verifier_state__may_goto_depth
	__u64 (*jiffies)(void) = (void *)118; /* bpf_jiffies64, which is one load */

	return jiffies() >> 50;
#else
	return 0;
#endif
}

/* The same pointer as a number, which arithmetic may use, of an argument whose type the verifier knows. By the helper
 * that reads memory of either kind, bpf_probe_read(): on a stack in user memory, which exploits bring, the one for
 * kernel memory refuses. */
static __always_inline void *krie_without_type(void *pointer)
{
	long (*read_any)(void *to, __u32 size, const void *from) = (void *)4;

	read_any(&pointer, sizeof(pointer), &pointer);
	return pointer;
}

/* Arguments of a security hook, as numbers, from the context's memory: verifiers before 1271a40eeafa (6.16) let no
 * program load a pointer to constant memory that has no type, and those before bb6728d75611 (5.17) none to text. By the
 * helper that reads memory of either kind, as krie_without_type(). */
static __always_inline void krie_arguments(void *to, const __u32 size, __u64 *ctx)
{
	long (*read_any)(void *to, __u32 size, const void *from) = (void *)4;

	read_any(to, size, ctx);
}

/* One of them. */
static __always_inline void *krie_argument(__u64 *ctx, const __u32 index)
{
	void *value = NULL;

	krie_arguments(&value, sizeof(value), ctx + index);
	return value;
}

/* The value, but no more than `most`, checked where the verifier sees it: clang moves or drops checks that it finds
 * needless. */
static __always_inline __u64 krie_at_most(__u64 value, const __u64 most)
{
	asm volatile("" : "+r"(value));
	return value > most ? most : value;
}

/* 1 for any value but 0, computed here and without a branch: clang would compare where the value is used, and the
 * verifier would follow both ways from where it was set up to there. */
static __always_inline __u64 krie_truth(__u64 value)
{
	__u64 negative = 0 - value;

	asm volatile("" : "+r"(negative)); /* clang knows what (value | -value) >> 63 is, and would compare */
	value |= negative;
	value >>= 63;
	asm volatile("" : "+r"(value));
	return value;
}

/* 1 where two values are equal. */
static __always_inline __u64 krie_equal(__u64 one, __u64 other)
{
	return 1 - krie_truth(one ^ other);
}

/* 1 where a number is less than another one. */
static __always_inline __u64 krie_less(__u64 one, __u64 other)
{
	__u64 borrow = (~one & other) | (~(one ^ other) & (one - other));

	asm volatile("" : "+r"(borrow)); /* as in krie_truth() */
	borrow >>= 63;
	asm volatile("" : "+r"(borrow));
	return borrow;
}

/* The same of numbers below 2^63, in fewer instructions, for loops. */
static __always_inline __u64 krie_small_less(__u64 one, __u64 other)
{
	one -= other;
	asm volatile("" : "+r"(one)); /* as in krie_truth() */
	return one >> 63;
}

#endif
