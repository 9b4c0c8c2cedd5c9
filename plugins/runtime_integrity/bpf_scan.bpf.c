/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Which helpers and functions of the kernel a program that is being loaded calls.
 */

#define RUNTIME_INTEGRITY_SCANNED 4096 /* instructions of a program that are looked at */
#define RUNTIME_INTEGRITY_BATCH 4 /* of them, read at a time */

#define RUNTIME_INTEGRITY_SEND_SIGNAL 1 /* bits of `helpers`: HELPERS in names.py */
#define RUNTIME_INTEGRITY_OVERRIDE_RETURN 2
#define RUNTIME_INTEGRITY_PROBE_WRITE_USER 4

/* 1 where both are equal, 0 elsewhere, without a branch: the verifier would follow each of the 4096 instructions' ways. */
static __always_inline u32 runtime_integrity_equal(u64 one, u64 other)
{
	u64 differs = one ^ other;

	differs |= -differs; /* the highest bit is set for all but 0 */
	asm volatile("" : "+r"(differs)); /* clang must not make a branch of it */
	return 1 ^ (u32)(differs >> 63);
}

/* Helpers by number, and whether functions of the kernel (kfuncs) are called. */
struct runtime_integrity_called {
	u64 helpers[4];
	u64 kernel;
};

/* By thread, since a program of an LSM hook can be preempted by another load on its CPU. */
BPF_TABLE("lru_hash", u64, struct runtime_integrity_called, runtime_integrity_calls, 256);

static __always_inline void runtime_integrity_call(struct runtime_integrity_called *called, u64 instruction)
{
	u64 call = instruction & 0xf0ff; /* the source register of 0x85 tells what is called: 0 a helper, 2 a kfunc */
	u64 number = instruction >> 32;

	called->helpers[(number >> 6) & 3] |= (u64)(runtime_integrity_equal(call, 0x85) & runtime_integrity_equal(number >> 8, 0))
					      << (number & 63);
	called->kernel |= runtime_integrity_equal(call, 0x2085);
}

/* Those by which the program changes what others do, as bits of `helpers`. */
static __always_inline u32 runtime_integrity_changing(const struct runtime_integrity_called *called)
{
	return ((called->helpers[109 >> 6] >> (109 & 63) | called->helpers[117 >> 6] >> (117 & 63)) & 1) *
		       RUNTIME_INTEGRITY_SEND_SIGNAL /* send_signal, send_signal_thread */ |
	       (called->helpers[58 >> 6] >> (58 & 63) & 1) * RUNTIME_INTEGRITY_OVERRIDE_RETURN |
	       (called->helpers[36 >> 6] >> (36 & 63) & 1) * RUNTIME_INTEGRITY_PROBE_WRITE_USER;
}

/* What the scan keeps lies on the stack off the 8-byte grid, where the verifier does not follow values: with registers it
 * would look at each step once for every range that they may have. */
struct runtime_integrity_scan {
	u32 unused;
	u32 known;
} __attribute__((aligned(8)));

/* The smaller one of what is left (not 0) and RUNTIME_INTEGRITY_BATCH, again without a branch. */
static __always_inline u64 runtime_integrity_batch(u64 left)
{
	u64 last = left - 1;
	u64 more = last / RUNTIME_INTEGRITY_BATCH;

	asm volatile("" : "+r"(more)); /* clang must not make a branch of it */
	last |= 0 - (krie_truth(more));
	asm volatile("" : "+r"(last));
	return (last & (RUNTIME_INTEGRITY_BATCH - 1)) + 1;
}

/* Look for helpers in the instructions, which lie in the caller's memory. `count` is what a helper wrote, which the verifier does
 * not follow either. What is left of a batch in the last, shorter one was seen before. */
static __always_inline void runtime_integrity_scan(volatile struct runtime_integrity_scan *found,
						   struct runtime_integrity_called *called, volatile u32 *count, u64 insns)
{
	/* bpf_probe_read: of user memory, or of the kernel's where a BPF program is what calls. */
	long (*read_any)(void *to, u32 size, const void *from) = (void *)4;
	u64 batch[RUNTIME_INTEGRITY_BATCH] = {};

	for (u32 index = 0; index < RUNTIME_INTEGRITY_SCANNED; index += RUNTIME_INTEGRITY_BATCH) {
		u32 total = *count;

		if (index >= total) {
			found->known = 1;
			return;
		}
		if (read_any(batch, runtime_integrity_batch(total - index) * sizeof(batch[0]),
			     (void *)(insns + index * sizeof(batch[0]))))
			return;
#pragma unroll
		for (int i = 0; i < RUNTIME_INTEGRITY_BATCH; i++)
			runtime_integrity_call(called, batch[i]);
	}
}
