/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The process table's own probes: fork, exec and exit of processes (threads are left out). Raw tracepoints, because
 * they exist on every kernel and survive the switches that silence ftrace and kprobes.
 */

#define PROCESS_NAME_BYTES 256 /* the longest file name, with its end */
#define PROCESS_DEPTH 24 /* components of a path, and mounts crossed, that are followed */

#ifdef KRIE_USE_PROCESS_FORK_RAW_TRACEPOINT
/* sched_process_fork(parent, child) */
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	struct process_fork *record;

	if (!krie_enter(KRIE_PROGRAM_process_fork))
		return 0;
	if (KRIE_READ(task_struct, child, tgid) != KRIE_READ(task_struct, child, pid))
		return 0;
	record = krie_reserve_process_fork(KRIE_PROGRAM_process_fork);
	if (!record)
		return 0;
	struct task_struct *parent = KRIE_READ(task_struct, child, real_parent);

	record->child_tgid = KRIE_READ(task_struct, child, tgid);
	record->child_start_time = KRIE_READ(task_struct, child, start_boottime);
	record->child_parent_tgid = KRIE_READ(task_struct, parent, tgid);
	record->child_parent_start_time = krie_start_time(parent);
	krie_submit_process_fork(record);
	return 0;
}
#endif

#ifdef KRIE_USE_PROCESS_EXEC_RAW_TRACEPOINT
/* Write the path of `file` into the record, last component first, each with its NUL. Mounts are crossed up to the root
 * of the namespace, as for /proc/TGID/exe. */
static __always_inline void process_path(struct process_exec *record, struct file *file)
{
	struct dentry *dentry = KRIE_READ(file, file, f_path.dentry);
	struct vfsmount *vfs = KRIE_READ(file, file, f_path.mnt);

	record->truncated = 1;
	for (int step = 0; step < PROCESS_DEPTH; step++) {
		struct mount *mount = (void *)vfs - __builtin_offsetof(struct mount, mnt);
		struct dentry *above = KRIE_READ(dentry, dentry, d_parent);

		if (dentry == KRIE_READ(vfsmount, vfs, mnt_root)) {
			struct mount *over = KRIE_READ(mount, mount, mnt_parent);

			if (over == mount) { /* the namespace's root */
				record->truncated = 0;
				break;
			}
			dentry = KRIE_READ(mount, mount, mnt_mountpoint);
			vfs = (void *)over + __builtin_offsetof(struct mount, mnt);
			continue;
		}
		/* Kept in the record, whose content the verifier does not follow: with a variable it would look at the
		 * 24 steps once for every sum of lengths. */
		u32 used = record->length;

		if (used > PROCESS_PATH_BYTES - PROCESS_NAME_BYTES)
			break;
		long length = bpf_probe_read_kernel_str(record->components + used, PROCESS_NAME_BYTES,
							KRIE_READ(dentry, dentry, d_name.name));
		if (length <= 0)
			break;
		record->length = used + length;
		if (above == dentry) { /* no file system that is mounted anywhere, such as a memfd's */
			record->truncated = 0;
			break;
		}
		dentry = above;
	}
}

/* sched_process_exec(task, old_pid, bprm): the task runs the new executable already. */
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct process_exec *record;

	if (!krie_enter(KRIE_PROGRAM_process_exec))
		return 0;
	record = krie_reserve_process_exec(KRIE_PROGRAM_process_exec);
	if (!record)
		return 0;
	struct mm_struct *mm = KRIE_READ(task_struct, krie_current(), mm);
	struct file *file = KRIE_READ(mm_struct, mm, exe_file);
	struct inode *inode = KRIE_READ(file, file, f_inode);

	record->deleted = KRIE_READ(inode, inode, i_nlink) == 0;
	process_path(record, file);
	krie_submit_process_exec(record);
	return 0;
}
#endif

#ifdef KRIE_USE_PROCESS_EXIT_RAW_TRACEPOINT
/* sched_process_exit(task): run by every thread; the last one finds nobody alive. */
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct signal_struct *group;
	struct process_exit *record;

	if (!krie_enter(KRIE_PROGRAM_process_exit))
		return 0;
	group = KRIE_READ(task_struct, krie_current(), signal);
	if (KRIE_READ(signal_struct, group, live.counter))
		return 0;
	record = krie_reserve_process_exit(KRIE_PROGRAM_process_exit);
	if (!record)
		return 0;
	krie_submit_process_exit(record);
	return 0;
}
#endif
