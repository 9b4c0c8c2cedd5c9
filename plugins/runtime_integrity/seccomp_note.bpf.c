/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What is noted of a thread's seccomp, which only ever gets stricter: the mode rises, the mark that has the kernel look
 * at it stays, and a new filter is put before those that are there, be it by another thread
 * (SECCOMP_FILTER_FLAG_TSYNC); those behind a filter are always the same. So whatever was the case once holds for
 * whatever is the case later, in whatever order both were read.
 */

/* That are gone through: more put before a noted one at once are taken as legal, and those further behind it are not
 * looked at. */
#define RUNTIME_INTEGRITY_FILTERS 8
#define RUNTIME_INTEGRITY_MODES 3 /* SECCOMP_MODE_... */
#define RUNTIME_INTEGRITY_MARKED 4
#define RUNTIME_INTEGRITY_SUSPENDED 24 /* PT_SUSPEND_SECCOMP is this bit of task->ptrace */

struct runtime_integrity_seccomp {
	u64 filter; /* address of the newest one; 0: none */
	u16 mode; /* and the mark */
	u16 spare;
	u32 behind; /* runtime_integrity_behind() of it, where it is noted */
};

static __always_inline void runtime_integrity_read_seccomp(struct runtime_integrity_seccomp *seccomp,
							   struct task_struct *task)
{
#ifdef KRIE_HAS_seccomp__filter
	struct seccomp read = KRIE_READ(task_struct, task, seccomp);
	u64 marked, suspended;
#endif

	seccomp->filter = seccomp->mode = seccomp->spare = seccomp->behind = krie_uncounted();
#ifdef KRIE_HAS_seccomp__filter
#ifdef KRIE_HAS_thread_info__syscall_work /* since b86678cf0f1d */
	marked = KRIE_READ(task_struct, task, thread_info.syscall_work); /* bit 0, SYSCALL_WORK_BIT_SECCOMP */
#else
	marked = (u64)KRIE_READ(task_struct, task, thread_info.flags) >> 8; /* TIF_SECCOMP */
#endif
	/* What is suspended for a tracer the kernel does not look at: where there is none, the mark is as good as gone.
	 */
	suspended = KRIE_READ(task_struct, task, ptrace) >> RUNTIME_INTEGRITY_SUSPENDED;
	suspended &= 1 - krie_truth((u64)KRIE_READ(task_struct, task, ptracer_cred));
	marked &= 1 - suspended;
	seccomp->filter = (u64)read.filter;
	seccomp->mode = (read.mode & RUNTIME_INTEGRITY_MODES) | marked * RUNTIME_INTEGRITY_MARKED;
#endif
}

/* A sum of the addresses of those behind a filter, as far as they are gone through. */
static __always_inline u32 runtime_integrity_behind(u64 filter)
{
	u64 sum = filter & 7; /* 0, which the verifier does not know */

#ifdef KRIE_HAS_seccomp__filter
	if (!filter)
		return sum;
#pragma unroll
	for (int step = 0; step < RUNTIME_INTEGRITY_FILTERS; step++) {
		bpf_probe_read_kernel(&filter, sizeof(filter), KRIE_ADDRESS(seccomp_filter, filter, prev));
		sum += filter;
	}
#endif
	return sum;
}

/* 1 where a filter is among those that begin with `newest`, as far as they are gone through. Without a branch: kernels
 * that look at each round of a loop would follow each way out of it to the end of the program. */
static __always_inline u64 runtime_integrity_filtered_by(u64 newest, u64 filter)
{
	u64 found = 0, next = newest;

#ifdef KRIE_HAS_seccomp__filter
#pragma unroll
	for (int step = 0; step < RUNTIME_INTEGRITY_FILTERS; step++) {
		found |= krie_equal(newest, filter);
		bpf_probe_read_kernel(&next, sizeof(next), KRIE_ADDRESS(seccomp_filter, newest, prev));
		newest = next;
	}
#endif
	return found | krie_truth(newest);
}

/* 1 where less is forbidden to a thread than before. Of one that ends the kernel lets go of the filters, and of nothing
 * else: by mode and mark everything is forbidden then (seccomp_run_filters()), so that those before are taken to stay.
 */
static __always_inline u64 runtime_integrity_laxer(struct runtime_integrity_seccomp *before,
						   struct runtime_integrity_seccomp *now)
{
	u64 lower = krie_less(now->mode & RUNTIME_INTEGRITY_MODES, before->mode & RUNTIME_INTEGRITY_MODES);
	u64 unmarked = krie_truth(before->mode & ~now->mode & RUNTIME_INTEGRITY_MARKED);
	u64 dropped = before->spare; /* 0, which the verifier does not know: it need not follow both ways on */
	/* What a thread that ends let go of may be something else already. */
	u64 relinked = krie_truth(runtime_integrity_behind(before->filter) ^ before->behind) * krie_truth(now->filter);

	if (before->filter && now->filter != before->filter) {
		now->filter |= before->filter & (krie_truth(now->filter) - 1);
		dropped = 1 - runtime_integrity_filtered_by(now->filter, before->filter);
	}
	return lower | unmarked | dropped | relinked;
}

static __always_inline bool runtime_integrity_stricter(struct runtime_integrity_seccomp *before,
						       struct runtime_integrity_seccomp *now)
{
	return before->filter != now->filter || before->mode != now->mode;
}
