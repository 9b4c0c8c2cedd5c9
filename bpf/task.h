/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Tasks. Included (not pasted), like krie.h.
 */
#ifndef KRIE_TASK_H
#define KRIE_TASK_H

/* The current task as a number, which may be stored and used in arithmetic. */
static __always_inline struct task_struct *krie_current(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* The current task as a pointer for KRIE_LOAD, on which the verifier allows no arithmetic. */
static __always_inline struct task_struct *krie_current_btf(void)
{
#ifdef KRIE_HAS_TASK_BTF
	return bpf_get_current_task_btf();
#else
	return krie_current();
#endif
}

static __always_inline __u64 krie_start_time(struct task_struct *task)
{
	struct task_struct *leader = KRIE_READ(task_struct, task, group_leader);

	return KRIE_READ(task_struct, leader, start_boottime);
}

/* The thread with this number in the PID namespace of `caller`, as ptrace(2) would find it; NULL when there is none.
 * bpf_task_from_vpid() exists on few kernels; this walks the namespace's IDR, an xarray keyed by number. */
static __always_inline struct task_struct *krie_task_by_tid(struct task_struct *caller, __u32 tid)
{
	struct pid *pid = KRIE_READ(task_struct, caller, thread_pid);
	struct upid number = {};
	struct hlist_node *node;
	__u64 entry;

	bpf_probe_read_kernel(&number, sizeof(number),
			      KRIE_ADDRESS(pid, pid, numbers) + KRIE_READ(pid, pid, level) * sizeof(number));
	entry = (__u64)KRIE_READ(pid_namespace, number.ns, idr.idr_rt.xa_head);
	/* An inner node has 2 in its low bits and holds 64 (or 16) slots; 32 bits of a number need at most 6 (8)
	 * levels. */
#pragma unroll
	for (int level = 0; level < 8; level++) {
		const __u64 slots = sizeof(((struct xa_node *)0)->slots) / sizeof(void *);
		struct xa_node *inner = (struct xa_node *)(entry - 2);
		__u64 slot;

		if ((entry & 3) != 2 || entry < 4096)
			break;
		slot = (__u64)tid >> KRIE_READ(xa_node, inner, shift);
		entry = 0;
		if (level == 0 && slot >= slots)
			break;
		bpf_probe_read_kernel(&entry, sizeof(entry),
				      KRIE_ADDRESS(xa_node, inner, slots) + (slot & (slots - 1)) * sizeof(void *));
		if (!entry)
			break;
	}
	krie_forget(&entry, sizeof(entry));
	pid = (struct pid *)entry;
	node = KRIE_READ(pid, pid, tasks[0].first);
	return (void *)(((__u64)node - __builtin_offsetof(struct task_struct, pid_links)) &
			(0 - krie_truth((__u64)node)));
}

#endif
