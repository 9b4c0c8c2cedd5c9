/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The process table's own probes: fork, exec and exit of processes (threads are left out). Raw tracepoints, because
 * they exist on every kernel and survive the switches that silence ftrace and kprobes.
 */

/* sched_process_fork(parent, child) */
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	struct process_fork *record;
	u32 tgid = KRIE_READ(task_struct, child, tgid);

	if (tgid != KRIE_READ(task_struct, child, pid))
		return 0;
	process_inherit(child);
	if (!krie_enter())
		return 0;
	record = krie_reserve_process_fork();
	if (!record)
		return 0;
	struct task_struct *parent = KRIE_READ(task_struct, child, real_parent);

	record->child_tgid = tgid;
	record->child_start_time = KRIE_READ(task_struct, child, start_boottime);
	record->child_parent_tgid = KRIE_READ(task_struct, parent, tgid);
	record->child_parent_start_time = krie_start_time(parent);
	krie_submit_process_fork(record);
	return 0;
}

/* sched_process_exec(task, old_pid, bprm): the task runs the new executable already. */
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct process_exec *record;
	u32 influence = process_bind();

	if (!krie_enter())
		return 0;
	record = krie_reserve_process_exec();
	if (!record)
		return 0;
	struct mm_struct *mm = KRIE_READ(task_struct, krie_current(), mm);
	struct file *file = KRIE_READ(mm_struct, mm, exe_file);
	struct inode *inode = KRIE_READ(file, file, f_inode);

	record->influence = influence;
	record->deleted = KRIE_READ(inode, inode, i_nlink) == 0;
	record->truncated = krie_path(file, record->components, PROCESS_PATH_BYTES, &record->length);
	krie_submit_process_exec(record);
	return 0;
}

/* sched_process_exit(task): run by every thread; the last one finds nobody alive. */
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct signal_struct *group = KRIE_LOAD(task_struct, krie_current_btf(), signal);
	bool last = !KRIE_LOAD(signal_struct, group, live.counter);
	struct process_exit *record;

	if (krie_enter() && last) {
		record = krie_reserve_process_exit();
		if (record)
			krie_submit_process_exit(record);
	}
	if (last)
		process_forget();
	return 0;
}
