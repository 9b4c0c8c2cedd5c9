/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the C of every sensor may use without touching a map: reading kernel memory, and what the loader writes into
 * programs. Included (not pasted): BCC's rewriter leaves this file alone, so every read of kernel memory is explicit.
 */
#ifndef KRIE_H
#define KRIE_H

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Address of a field of a kernel object. offsetof, not `&p->field`: for the latter BCC 0.26 generates code that can be
 * off (see krie/kernel/btf.py). The agent reads `TYPE, ..., FIELD` of these macros out of the source: it slices those
 * types out of BTF, checks every offset in the generated code, and defines KRIE_HAS_<type>__<field>. */
#define KRIE_ADDRESS(type, pointer, field) ((void *)((__u64)(pointer) + __builtin_offsetof(struct type, field)))

/* Value of a field of a kernel object; zero where the memory cannot be read. */
#define KRIE_READ(type, pointer, field)                                                                                \
	({                                                                                                             \
		typeof(((struct type *)0)->field) krie_value;                                                          \
		bpf_probe_read_kernel((void *)&krie_value, sizeof(krie_value), KRIE_ADDRESS(type, pointer, field));    \
		krie_value;                                                                                            \
	})

/* The same by one load, where KRIE_READ calls a helper: of what krie_current_btf() gives, and of pointers that were
 * loaded from there with this macro, whose types the verifier follows. What may be NULL needs a check before it is
 * followed. An address to calculate with is for KRIE_READ. */
#ifdef KRIE_HAS_TASK_BTF
#define KRIE_LOAD(type, pointer, field)                                                                                \
	(*(const volatile typeof(((struct type *)0)->field) *)KRIE_ADDRESS(type, pointer, field))
#else
#define KRIE_LOAD KRIE_READ
#endif

/* Which program this is (its index in krie_alive) in the lower half, and its `argument` in the upper one: the loader
 * writes both over this number when it loads a function for one of its places (krie/loader/copies.py), so that the
 * verifier knows them, and what is compiled depends on neither. */
static __always_inline __u64 krie_self(void)
{
	__u64 self = KRIE_SELF;

	asm volatile("" : "+r"(self)); /* or clang would use it in calculations */
	return self;
}

/* A number of this start that only the agent, its loader and its keeper know: who runs the agent's own programs says it
 * as the argument KRIE_SECRET_ARGUMENT. Written over this one as the number above is. */
static __always_inline __u64 krie_secret(void)
{
	__u64 secret = KRIE_SECRET;

	asm volatile("" : "+r"(secret));
	return secret;
}

/* What a cgroup program returns to let an access through. */
#define KRIE_CGROUP_ALLOW 1

#endif
