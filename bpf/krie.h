/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the C of every sensor may use without touching a map: reading kernel memory, tasks, the event header.
 * Included (not pasted): BCC's rewriter leaves this file alone, so every read of kernel memory is explicit.
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
#define KRIE_READ(type, pointer, field)                                                                               \
	({                                                                                                            \
		typeof(((struct type *)0)->field) krie_value;                                                         \
		bpf_probe_read_kernel((void *)&krie_value, sizeof(krie_value),                                        \
				      KRIE_ADDRESS(type, pointer, field));                                                     \
		krie_value;                                                                                           \
	})

/* What a cgroup program returns to let an access through. */
#define KRIE_CGROUP_ALLOW 1

/* The value, but no more than `most`, checked where the verifier sees it: clang moves or drops checks that it finds
 * needless. */
static __always_inline __u64 krie_at_most(__u64 value, const __u64 most)
{
	asm volatile("" : "+r"(value));
	return value > most ? most : value;
}

/* x86 system call numbers carry this bit for x32 callers. */
#define KRIE_X32_BIT 0x40000000
#define KRIE_TS_COMPAT 0x0002

static __always_inline struct task_struct *krie_current(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* Whether the current system call came by a 32-bit entry. Only true within a system call. */
static __always_inline bool krie_compat(struct task_struct *task)
{
	return KRIE_READ(task_struct, task, thread_info.status) & KRIE_TS_COMPAT;
}

/* Arguments of a system call, as a raw tracepoint at sys_enter(regs, number) finds them. */
struct krie_syscall {
	__u64 number, first, second, third;
	bool compat;
};

/* Whether the system call is one of two numbers (of 64-bit and of 32-bit callers; compare krie_syscall.compat too): the
 * cheapest question that can be asked of every system call. */
static __always_inline bool krie_syscall_is_either(struct bpf_raw_tracepoint_args *ctx, __u64 native, __u64 ia32)
{
	__u64 number = ctx->args[1] & ~(__u64)KRIE_X32_BIT;

	return number == native || number == ia32;
}

static __always_inline struct krie_syscall krie_syscall_of(struct bpf_raw_tracepoint_args *ctx)
{
	void *regs = (void *)ctx->args[0];
	struct krie_syscall call = {
		.number = ctx->args[1] & ~(__u64)KRIE_X32_BIT,
		.compat = krie_compat(krie_current()),
	};

	if (call.compat) { /* the registers differ, and so do the numbers */
		call.first = (__u32)KRIE_READ(pt_regs, regs, bx);
		call.second = (__u32)KRIE_READ(pt_regs, regs, cx);
		call.third = (__u32)KRIE_READ(pt_regs, regs, dx);
	} else {
		call.first = KRIE_READ(pt_regs, regs, di);
		call.second = KRIE_READ(pt_regs, regs, si);
		call.third = KRIE_READ(pt_regs, regs, dx);
	}
	return call;
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
	/* An inner node has 2 in its low bits and holds 64 (or 16) slots; 32 bits of a number need at most 6 (8) levels. */
#pragma unroll
	for (int level = 0; level < 8; level++) {
		const __u64 slots = sizeof(((struct xa_node *)0)->slots) / sizeof(void *);
		struct xa_node *inner = (struct xa_node *)(entry - 2);
		__u64 slot;

		if ((entry & 3) != 2 || entry < 4096)
			break;
		slot = (__u64)tid >> KRIE_READ(xa_node, inner, shift);
		if (level == 0 && slot >= slots)
			return NULL;
		entry = 0;
		bpf_probe_read_kernel(&entry, sizeof(entry),
				      KRIE_ADDRESS(xa_node, inner, slots) + (slot & (slots - 1)) * sizeof(void *));
		if (!entry)
			return NULL;
	}
	pid = (struct pid *)entry;
	node = KRIE_READ(pid, pid, tasks[0].first);
	return node ? (void *)node - __builtin_offsetof(struct task_struct, pid_links) : NULL;
}

/* Mode of an open file that is an argument of an LSM or fmod_ret program: the verifier knows its type, so that this is
 * one load, where KRIE_READ calls a helper. For what runs at each open. */
static __always_inline __u32 krie_argument_mode(struct file *file)
{
	return *(__u32 *)KRIE_ADDRESS(file, file, f_mode);
}

/* Device, inode and generation of an open file. */
static __always_inline void krie_identity(struct file *file, __u32 *dev, __u64 *ino, __u32 *generation)
{
	struct inode *inode = KRIE_READ(file, file, f_inode);
	struct super_block *super = KRIE_READ(inode, inode, i_sb);

	*dev = KRIE_READ(super_block, super, s_dev);
	*ino = KRIE_READ(inode, inode, i_ino);
	*generation = KRIE_READ(inode, inode, i_generation);
}

static __always_inline void krie_namespaces(struct task_struct *task, struct krie_header *header)
{
	struct nsproxy *proxy = KRIE_READ(task_struct, task, nsproxy);
	void *each;

	each = KRIE_READ(nsproxy, proxy, mnt_ns);
	header->mnt_ns = KRIE_READ(mnt_namespace, each, ns.inum);
	each = KRIE_READ(nsproxy, proxy, pid_ns_for_children);
	header->pid_ns = KRIE_READ(pid_namespace, each, ns.inum);
	each = KRIE_READ(nsproxy, proxy, net_ns);
	header->net_ns = KRIE_READ(net, each, ns.inum);
	each = KRIE_READ(nsproxy, proxy, uts_ns);
	header->uts_ns = KRIE_READ(uts_namespace, each, ns.inum);
	each = KRIE_READ(nsproxy, proxy, ipc_ns);
	header->ipc_ns = KRIE_READ(ipc_namespace, each, ns.inum);
	each = KRIE_READ(nsproxy, proxy, cgroup_ns);
	header->cgroup_ns = KRIE_READ(cgroup_namespace, each, ns.inum);
}

/* Everything about the current process; the caller adds kind, version, size and seq. Only helpers that a cgroup/sysctl
 * program of 5.10 has: all else is read from the task. */
static __always_inline void krie_fill_header(struct krie_header *header)
{
	struct task_struct *task = krie_current();
	struct task_struct *parent = KRIE_READ(task_struct, task, real_parent);
	const struct cred *cred = KRIE_READ(task_struct, task, cred);
	struct mm_struct *mm = KRIE_READ(task_struct, task, mm);
	struct css_set *groups = KRIE_READ(task_struct, task, cgroups);
	struct cgroup *group = KRIE_READ(css_set, groups, dfl_cgrp);
	struct kernfs_node *node = KRIE_READ(cgroup, group, kn);
	struct user_namespace *user_ns = KRIE_READ(cred, cred, user_ns);

	header->time = bpf_ktime_get_boot_ns();
	header->start_time = krie_start_time(task);
	header->tgid = KRIE_READ(task_struct, task, tgid);
	header->tid = KRIE_READ(task_struct, task, pid);
	header->uid = KRIE_READ(cred, cred, uid.val);
	header->euid = KRIE_READ(cred, cred, euid.val);
	header->gid = KRIE_READ(cred, cred, gid.val);
	header->cpu = bpf_get_smp_processor_id();
	header->cgroup = KRIE_READ(kernfs_node, node, id);
	header->parent_tgid = KRIE_READ(task_struct, parent, tgid);
	header->parent_start_time = krie_start_time(parent);
	header->user_ns = KRIE_READ(user_namespace, user_ns, ns.inum);
	krie_namespaces(task, header);
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), KRIE_ADDRESS(task_struct, task, comm));
	if (mm) { /* not a kernel thread */
		struct file *file = KRIE_READ(mm_struct, mm, exe_file);

		if (file)
			krie_identity(file, &header->exe_dev, &header->exe_ino, &header->exe_generation);
	}
}

#endif
