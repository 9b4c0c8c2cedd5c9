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

/* The same by one load, where KRIE_READ calls a helper: of what krie_task() gives, and of pointers that were loaded from
 * there with this macro, whose types the verifier follows. What may be NULL needs a check before it is followed. */
#ifdef KRIE_HAS_TASK_BTF
#define KRIE_LOAD(type, pointer, field)                                                                               \
	(*(const volatile typeof(((struct type *)0)->field) *)KRIE_ADDRESS(type, pointer, field))
#else
#define KRIE_LOAD KRIE_READ
#endif

/* Which program this is, in the lower half, and its `argument` in the upper one: the loader writes both over this number
 * when it loads a function for one of its places (krie/kernel/copies.py), so that the verifier knows them. */
static __always_inline __u64 krie_self(void)
{
	__u64 self = 0x6b72696573656c66ULL; /* "krieself" */

	asm volatile("" : "+r"(self)); /* or clang would reckon with it */
	return self;
}

/* What a cgroup program returns to let an access through. */
#define KRIE_CGROUP_ALLOW 1

/* The value, but no more than `most`, checked where the verifier sees it: clang moves or drops checks that it finds
 * needless. */
static __always_inline __u64 krie_at_most(__u64 value, const __u64 most)
{
	asm volatile("" : "+r"(value));
	return value > most ? most : value;
}

/* 1 for any value but 0, computed here and without a branch: clang would compare where the value is used, and the verifier
 * would follow both ways from where it was set up to there. */
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

	borrow >>= 63;
	asm volatile("" : "+r"(borrow));
	return borrow;
}

/* The current task as a number, which may be stored and reckoned with. */
static __always_inline struct task_struct *krie_current(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* The current task as a pointer for KRIE_LOAD, which the verifier lets nobody reckon with. */
static __always_inline struct task_struct *krie_task(void)
{
#ifdef KRIE_HAS_TASK_BTF
	return bpf_get_current_task_btf();
#else
	return krie_current();
#endif
}

/* The file behind a descriptor of the current task; NULL where there is none. */
static __always_inline struct file *krie_open_file(__u64 descriptor)
{
	struct files_struct *files = KRIE_READ(task_struct, krie_current(), files);
	struct fdtable *table = KRIE_READ(files_struct, files, fdt);
	struct file *file = NULL;
	struct file **slots;

	slots = KRIE_READ(fdtable, table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), (void *)((__u64)slots + descriptor * sizeof(file)));
	return (void *)((__u64)file & (0 - krie_less(descriptor, KRIE_READ(fdtable, table, max_fds))));
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

#define KRIE_NAME_LENGTH 256 /* the longest file name, with its end */
#define KRIE_PATH_DEPTH 24 /* components of a path, and mounts crossed, that are followed */

/* Write the path of `file` into a record, last component first, each with its NUL. Mounts are crossed up to the root of
 * the namespace, as for /proc/TGID/exe. Returns 1 where it goes on above. `length` lies in the record, too, whose content
 * the verifier does not follow: with a variable it would look at the 24 steps once for every sum of lengths. */
static __always_inline __u8 krie_path(struct file *file, char *components, const __u32 bytes, __u32 *length)
{
	struct dentry *dentry = KRIE_READ(file, file, f_path.dentry);
	struct vfsmount *vfs = KRIE_READ(file, file, f_path.mnt);

	for (int step = 0; step < KRIE_PATH_DEPTH; step++) {
		struct mount *mount = (void *)vfs - __builtin_offsetof(struct mount, mnt);
		struct dentry *above = KRIE_READ(dentry, dentry, d_parent);

		if (dentry == KRIE_READ(vfsmount, vfs, mnt_root)) {
			struct mount *over = KRIE_READ(mount, mount, mnt_parent);

			if (over == mount) /* the namespace's root */
				return 0;
			dentry = KRIE_READ(mount, mount, mnt_mountpoint);
			vfs = (void *)over + __builtin_offsetof(struct mount, mnt);
			continue;
		}
		__u32 used = *length;

		if (used > bytes - KRIE_NAME_LENGTH)
			return 1;
		long written = bpf_probe_read_kernel_str(components + used, KRIE_NAME_LENGTH,
							 KRIE_READ(dentry, dentry, d_name.name));
		if (written <= 0)
			return 1;
		*length = used + written;
		if (above == dentry) /* no file system that is mounted anywhere, such as a memfd's */
			return 0;
		dentry = above;
	}
	return 1;
}

#define KRIE_CONTEXT_KERNEL_THREAD 1 /* bits of header.context */
#define KRIE_CONTEXT_CONTAINER 2
#define KRIE_PF_KTHREAD 0x00200000 /* include/linux/sched.h */

static __always_inline __u16 krie_context(void)
{
	struct task_struct *task = krie_task();
	struct pid *pid = KRIE_LOAD(task_struct, task, thread_pid);
	__u16 context = KRIE_LOAD(pid, pid, level) ? KRIE_CONTEXT_CONTAINER : 0;

	return context | (KRIE_LOAD(task_struct, task, flags) & KRIE_PF_KTHREAD ? KRIE_CONTEXT_KERNEL_THREAD : 0);
}

/* Device, inode and generation of what the current process runs; false for a kernel thread. */
static __always_inline bool krie_executable(__u32 *dev, __u64 *ino, __u32 *generation)
{
	struct mm_struct *mm = KRIE_LOAD(task_struct, krie_task(), mm);
	struct super_block *super;
	struct inode *inode;
	struct file *file;

	if (!mm)
		return false;
	file = KRIE_LOAD(mm_struct, mm, exe_file);
	if (!file)
		return false;
	inode = KRIE_LOAD(file, file, f_inode);
	super = KRIE_LOAD(inode, inode, i_sb);
	*dev = KRIE_LOAD(super_block, super, s_dev);
	*ino = KRIE_LOAD(inode, inode, i_ino);
	*generation = KRIE_LOAD(inode, inode, i_generation);
	return true;
}

static __always_inline __u64 krie_own_start_time(void)
{
	struct task_struct *leader = KRIE_LOAD(task_struct, krie_task(), group_leader);

	return KRIE_LOAD(task_struct, leader, start_boottime);
}

/* Which process this is, whose child, what it runs and as whom: what the process table needs. Only helpers that a
 * cgroup/sysctl program has: all else is read from the task. */
static __always_inline void krie_fill_process(struct krie_header *header)
{
	struct task_struct *task = krie_task();
	struct task_struct *parent = KRIE_LOAD(task_struct, task, real_parent);
	struct task_struct *parent_leader = KRIE_LOAD(task_struct, parent, group_leader);
	const struct cred *cred = KRIE_LOAD(task_struct, task, cred);

	header->time = bpf_ktime_get_boot_ns();
	header->cpu = bpf_get_smp_processor_id();
	header->start_time = krie_own_start_time();
	header->tgid = KRIE_LOAD(task_struct, task, tgid);
	header->tid = KRIE_LOAD(task_struct, task, pid);
	header->uid = KRIE_LOAD(cred, cred, uid.val);
	header->euid = KRIE_LOAD(cred, cred, euid.val);
	header->gid = KRIE_LOAD(cred, cred, gid.val);
	header->parent_tgid = KRIE_LOAD(task_struct, parent, tgid);
	header->parent_start_time = KRIE_LOAD(task_struct, parent_leader, start_boottime);
	krie_executable(&header->exe_dev, &header->exe_ino, &header->exe_generation);
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), KRIE_ADDRESS(task_struct, task, comm));
}

static __always_inline void krie_fill_namespaces(struct krie_header *header)
{
	struct nsproxy *proxy = KRIE_LOAD(task_struct, krie_task(), nsproxy);
	struct mnt_namespace *mnt;
	struct pid_namespace *pid;
	struct net *net;
	struct uts_namespace *uts;
	struct ipc_namespace *ipc;
	struct cgroup_namespace *cgroup;

	if (!proxy) /* the task ends */
		return;
	mnt = KRIE_LOAD(nsproxy, proxy, mnt_ns);
	pid = KRIE_LOAD(nsproxy, proxy, pid_ns_for_children);
	net = KRIE_LOAD(nsproxy, proxy, net_ns);
	uts = KRIE_LOAD(nsproxy, proxy, uts_ns);
	ipc = KRIE_LOAD(nsproxy, proxy, ipc_ns);
	cgroup = KRIE_LOAD(nsproxy, proxy, cgroup_ns);
	header->mnt_ns = KRIE_LOAD(mnt_namespace, mnt, ns.inum);
	header->pid_ns = KRIE_LOAD(pid_namespace, pid, ns.inum);
	header->net_ns = KRIE_LOAD(net, net, ns.inum);
	header->uts_ns = KRIE_LOAD(uts_namespace, uts, ns.inum);
	header->ipc_ns = KRIE_LOAD(ipc_namespace, ipc, ns.inum);
	header->cgroup_ns = KRIE_LOAD(cgroup_namespace, cgroup, ns.inum);
}

/* Everything about the current process; the caller adds kind, version, size and seq. */
static __always_inline void krie_fill_header(struct krie_header *header)
{
	struct task_struct *task = krie_task();
	const struct cred *cred = KRIE_LOAD(task_struct, task, cred);
	struct css_set *groups = KRIE_LOAD(task_struct, task, cgroups);
	struct cgroup *group = KRIE_LOAD(css_set, groups, dfl_cgrp);
	struct kernfs_node *node = KRIE_LOAD(cgroup, group, kn);
	struct user_namespace *user_ns = KRIE_LOAD(cred, cred, user_ns);

	krie_fill_process(header);
	krie_fill_namespaces(header);
	header->cgroup = KRIE_LOAD(kernfs_node, node, id);
	header->user_ns = KRIE_LOAD(user_namespace, user_ns, ns.inum);
	header->context = krie_context();
}

#endif
