/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What every record says of the current process. Included (not pasted), like krie.h.
 */
#ifndef KRIE_HEADER_H
#define KRIE_HEADER_H

#define KRIE_PF_KTHREAD 0x00200000 /* include/linux/sched.h */

static __always_inline __u16 krie_context(void)
{
	struct task_struct *task = krie_current_btf();
	struct pid *pid = KRIE_LOAD(task_struct, task, thread_pid);

	return krie_truth(KRIE_LOAD(pid, pid, level)) * KRIE_CONTEXT_CONTAINER |
	       krie_truth(KRIE_LOAD(task_struct, task, flags) & KRIE_PF_KTHREAD) * KRIE_CONTEXT_KERNEL_THREAD;
}

static __always_inline __u64 krie_current_start_time(void)
{
	struct task_struct *leader = KRIE_LOAD(task_struct, krie_current_btf(), group_leader);

	return KRIE_LOAD(task_struct, leader, start_boottime);
}

/* Which process this is, whose child and as whom: what the process table needs, without what it runs: see
 * krie_fill_image(). Only helpers that a
 * cgroup/sysctl program has: all else is read from the task. */
static __always_inline void krie_fill_process(struct krie_header *header)
{
	struct task_struct *task = krie_current_btf();
	struct task_struct *parent = KRIE_LOAD(task_struct, task, real_parent);
	struct task_struct *parent_leader = KRIE_LOAD(task_struct, parent, group_leader);
	const struct cred *cred = KRIE_LOAD(task_struct, task, cred);

	header->time = bpf_ktime_get_boot_ns();
	header->cpu = bpf_get_smp_processor_id();
	header->start_time = krie_current_start_time();
	header->tgid = KRIE_LOAD(task_struct, task, tgid);
	header->tid = KRIE_LOAD(task_struct, task, pid);
	header->uid = KRIE_LOAD(cred, cred, uid.val);
	header->euid = KRIE_LOAD(cred, cred, euid.val);
	header->gid = KRIE_LOAD(cred, cred, gid.val);
	header->parent_tgid = KRIE_LOAD(task_struct, parent, tgid);
	header->parent_start_time = KRIE_LOAD(task_struct, parent_leader, start_boottime);
	header->context = krie_context();
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), KRIE_ADDRESS(task_struct, task, comm));
}

/* That in which the current process lives. unshare() and setns() move its future children only, which nsproxy tells. */
static __always_inline __u32 krie_pid_namespace(void)
{
	struct pid *pid = KRIE_READ(task_struct, krie_current(), thread_pid);
	struct upid number = {};

	bpf_probe_read_kernel(&number, sizeof(number),
			      KRIE_ADDRESS(pid, pid, numbers) + KRIE_READ(pid, pid, level) * sizeof(number));
	return KRIE_READ(pid_namespace, number.ns, ns.inum);
}

/* The outermost PID namespace below the first one in which the current process lives, however deep it went since; 0
 * where it lives in the first one, or where that belongs to a user namespace, whose owner tells who stands behind it.
 */
static __always_inline __u64 krie_container(void)
{
	struct pid *pid = KRIE_READ(task_struct, krie_current(), thread_pid);
	__u64 below = krie_truth(KRIE_READ(pid, pid, level));
	struct upid *number = (void *)KRIE_ADDRESS(pid, pid, numbers) + below * sizeof(*number);
	struct pid_namespace *ns = KRIE_READ(upid, number, ns);
	struct user_namespace *owner = KRIE_READ(pid_namespace, ns, user_ns);

	below *= 1 - krie_truth(KRIE_READ(user_namespace, owner, level));
	return below * KRIE_READ(pid_namespace, ns, ns.inum);
}

static __always_inline void krie_fill_namespaces(struct krie_header *header)
{
	struct nsproxy *proxy = KRIE_LOAD(task_struct, krie_current_btf(), nsproxy);
	struct mnt_namespace *mnt;
	struct net *net;
	struct uts_namespace *uts;
	struct ipc_namespace *ipc;
	struct cgroup_namespace *cgroup;

	if (!proxy) /* the task ends */
		return;
	mnt = KRIE_LOAD(nsproxy, proxy, mnt_ns);
	net = KRIE_LOAD(nsproxy, proxy, net_ns);
	uts = KRIE_LOAD(nsproxy, proxy, uts_ns);
	ipc = KRIE_LOAD(nsproxy, proxy, ipc_ns);
	cgroup = KRIE_LOAD(nsproxy, proxy, cgroup_ns);
	header->mnt_ns = KRIE_LOAD(mnt_namespace, mnt, ns.inum);
	header->pid_ns = krie_pid_namespace();
	header->container_ns = krie_container();
	header->net_ns = KRIE_LOAD(net, net, ns.inum);
	header->uts_ns = KRIE_LOAD(uts_namespace, uts, ns.inum);
	header->ipc_ns = KRIE_LOAD(ipc_namespace, ipc, ns.inum);
	header->cgroup_ns = KRIE_LOAD(cgroup_namespace, cgroup, ns.inum);
}

/* Everything about the current process; the caller adds kind, version, size and seq. */
static __always_inline void krie_fill_header(struct krie_header *header)
{
	struct task_struct *task = krie_current_btf();
	const struct cred *cred = KRIE_LOAD(task_struct, task, cred);
	struct css_set *groups = KRIE_LOAD(task_struct, task, cgroups);
	struct cgroup *group = KRIE_LOAD(css_set, groups, dfl_cgrp);
	struct kernfs_node *node = KRIE_LOAD(cgroup, group, kn);
	struct user_namespace *user_ns = KRIE_LOAD(cred, cred, user_ns);

	krie_fill_process(header);
	krie_fill_namespaces(header);
	header->cgroup = KRIE_LOAD(kernfs_node, node, id);
	header->user_ns = KRIE_LOAD(user_namespace, user_ns, ns.inum);
}

#endif
