/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Which helpers and functions of the kernel a program that is being loaded calls. Its instructions are looked at by one
 * run of a program after the other, each by a tail call: the verifier looks at one.
 */

#define RUNTIME_INTEGRITY_LOADS 512 /* programs that are being loaded at a time; of others, nothing is known */
#define RUNTIME_INTEGRITY_SCANNED 15360 /* instructions of a program that are looked at */
#define RUNTIME_INTEGRITY_AT_ONCE 512 /* of them, in one run: 31 tail calls, where a kernel allows 32 */
#define RUNTIME_INTEGRITY_ONE_RUN 4096 /* that are looked at where no run can go on to another */
#define RUNTIME_INTEGRITY_BATCH 16 /* of them, read at a time */

#define RUNTIME_INTEGRITY_ATTR_BYTES 116 /* of union bpf_attr, up to attach_btf_obj_fd */

struct runtime_integrity_attr { /* the start of PROG_LOAD in union bpf_attr */
	u32 type;
	u32 insn_count;
	u64 insns;
	u32 unused[8];
	char prog_name[16]; /* 48 */
	u32 ifindex;
	u32 expected_attach_type; /* 68 */
	u32 further[9];
	u32 attach_btf_id; /* 108 */
	u32 attach_btf_obj_fd; /* 112 */
	u32 end;
};

/* A program that is being loaded. */
struct runtime_integrity_loading {
	struct runtime_integrity_attr attr;
	u64 helpers[4]; /* that it calls, by number */
	u64 kernel; /* whether it calls functions of the kernel (kfuncs) */
	u64 signals, signalled; /* the instruction that calls the one that sends signals, and whether it was seen */
	u64 attr_known, compat;
	u64 known; /* whether all of it was looked at */
	u64 next; /* instruction to look at */
	u64 batch[RUNTIME_INTEGRITY_BATCH];
};

/* By thread, since a program of an LSM hook can be preempted by another load on its CPU. Nothing is pushed out of it by
 * others: an entry is there from the begin of a load to its decision, and there are no more of them than threads in
 * between. */
BPF_HASH(runtime_integrity_loads, u64, struct runtime_integrity_loading, RUNTIME_INTEGRITY_LOADS);
BPF_ARRAY(runtime_integrity_no_load, struct runtime_integrity_loading,
	  1); /* what each begins as; the stack has no room for it */

static __always_inline struct runtime_integrity_loading *runtime_integrity_loading_now(void)
{
	u64 thread = bpf_get_current_pid_tgid();

	return runtime_integrity_loads.lookup(&thread);
}

/* Keep the call's attributes, read once, since others may change what the caller has. Where there is no room for them,
 * all that is known later is that something is loaded. */
static __always_inline void runtime_integrity_begin_scan(void *attributes, u64 size, bool trusted, u64 compat)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u64 thread = bpf_get_current_pid_tgid();
	struct runtime_integrity_loading *loading;
	u32 zero = 0;

	loading = runtime_integrity_no_load.lookup(&zero);
	if (!loading)
		return;
	runtime_integrity_loads.delete(&thread);
	runtime_integrity_loads.update(&thread, loading);
	loading = runtime_integrity_loads.lookup(&thread);
	if (!loading)
		return;
	size = krie_at_most(size, RUNTIME_INTEGRITY_ATTR_BYTES);
	loading->compat = compat;
	loading->signals = settings ? settings->signals : 0;
	loading->signals |= 0 - krie_equal(loading->signals, 0); /* which no instruction is */
	loading->attr_known = 1 - krie_truth(trusted ? bpf_probe_read_kernel(&loading->attr, size, attributes)
						     : bpf_probe_read_user(&loading->attr, size, attributes));
}

/* The same, where the kernel has made its own copy of the instructions already, which nobody can change any more: in
 * security_bpf_prog_load(prog, attr, ...), of 6.9 and later. */
static __always_inline void runtime_integrity_begin_scan_of(void *prog, void *attributes)
{
	struct runtime_integrity_loading *loading;

	runtime_integrity_begin_scan(attributes, RUNTIME_INTEGRITY_ATTR_BYTES, true, krie_compat(krie_current()));
	loading = runtime_integrity_loading_now();
	if (!loading)
		return;
	prog = krie_without_type(prog);
	loading->attr.insns = (u64)KRIE_ADDRESS(bpf_prog, prog, insnsi);
	loading->attr.insn_count = KRIE_READ(bpf_prog, prog, len);
}

static __always_inline void runtime_integrity_end_scan(void)
{
	u64 thread = bpf_get_current_pid_tgid();

	runtime_integrity_loads.delete(&thread);
}

/* What one instruction calls: 0x85 is a call, its source register tells of what: 0 a helper, by its number, 2 a kfunc.
 * Without a branch, as all of this: the verifier would follow each instruction's ways. */
static __always_inline void runtime_integrity_call(struct runtime_integrity_loading *loading, u64 instruction)
{
	u64 number = instruction >> 32;

	loading->helpers[(number >> 6) & 3] |= krie_equal(instruction & 0xffffff000000f0ffULL, 0x85) << (number & 63);
	loading->kernel |= krie_equal(instruction & 0xf0ff, 0x2085);
	loading->signalled |= krie_equal(instruction & 0xfffffffffffff0ffULL, loading->signals);
}

/* Those by which the program changes what others do, as bits of `helpers`. */
static __always_inline u32 runtime_integrity_changing(const struct runtime_integrity_loading *loading)
{
	return ((loading->helpers[109 >> 6] >> (109 & 63) | loading->helpers[117 >> 6] >> (117 & 63) |
		 loading->signalled) &
		1) *
		   RUNTIME_INTEGRITY_BPF_HELPERS_SEND_SIGNAL /* send_signal, send_signal_thread, or the kernel's
								function */
	       | (loading->helpers[58 >> 6] >> (58 & 63) & 1) * RUNTIME_INTEGRITY_BPF_HELPERS_OVERRIDE_RETURN |
	       (loading->helpers[36 >> 6] >> (36 & 63) & 1) * RUNTIME_INTEGRITY_BPF_HELPERS_PROBE_WRITE_USER |
	       (loading->helpers[104 >> 6] >> (104 & 63) & 1) * RUNTIME_INTEGRITY_BPF_HELPERS_SYSCTL_SET_NEW_VALUE;
}

/* The smaller one of what is left (not 0) and RUNTIME_INTEGRITY_BATCH. */
static __always_inline u64 runtime_integrity_batch(u64 left)
{
	u64 last = left - 1;
	u64 more = last / RUNTIME_INTEGRITY_BATCH;

	asm volatile("" : "+r"(more)); /* clang must not make a branch of it */
	last |= 0 - (krie_truth(more));
	asm volatile("" : "+r"(last));
	return (last & (RUNTIME_INTEGRITY_BATCH - 1)) + 1;
}

/* Look at the next so many instructions, which lie in the caller's memory or the kernel's. Whether there are more to
 * look at. What is left of a batch in the last, shorter one was seen before. */
static __always_inline bool runtime_integrity_scan_some(const u32 most)
{
	/* bpf_probe_read: of user memory, or of the kernel's where a BPF program is what calls. */
	long (*read_any)(void *to, u32 size, const void *from) = (void *)4;
	volatile struct runtime_integrity_loading *loading = runtime_integrity_loading_now();

	if (!loading || !loading->attr_known)
		return false;
#pragma clang loop unroll(disable)
	for (u64 i = krie_uncounted(); i < most && KRIE_GOES_ON; i += RUNTIME_INTEGRITY_BATCH) {
		u32 total = loading->attr.insn_count;
		u32 index = loading->next;

		if (index >= total) {
			loading->known = 1;
			return false;
		}
		if (index >= RUNTIME_INTEGRITY_SCANNED)
			return false;
		if (read_any((void *)loading->batch, runtime_integrity_batch(total - index) * sizeof(loading->batch[0]),
			     (void *)(loading->attr.insns + index * sizeof(loading->batch[0]))))
			return false;
#pragma unroll
		for (int j = 0; j < RUNTIME_INTEGRITY_BATCH; j++)
			runtime_integrity_call((struct runtime_integrity_loading *)loading, loading->batch[j]);
		loading->next = index + RUNTIME_INTEGRITY_BATCH;
	}
	return true;
}

static __always_inline bool runtime_integrity_scan(void)
{
	return runtime_integrity_scan_some(RUNTIME_INTEGRITY_AT_ONCE);
}
