/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Programs that the kernel starts by itself, at their exec: behind all that chooses them, before anything of them runs.
 */

static __always_inline int runtime_integrity_helper(struct linux_binprm *program, const u32 can)
{
	struct runtime_integrity_usermode_helper_inline known = {};
	struct runtime_integrity_usermode_helper *record;
	struct file *file = KRIE_READ(linux_binprm, program, file);
	struct inode *inode = KRIE_READ(file, file, f_inode);
	struct krie_answer answer;
	int error = 0;
	s64 length;

	length = bpf_probe_read_kernel_str(known.path, sizeof(known.path), KRIE_READ(linux_binprm, program, filename));
	known.path_truncated = krie_equal(length, sizeof(known.path));
	known.file_uid = KRIE_READ(inode, inode, i_uid.val);
	known.others_write = KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_OTHERS_WRITE;
	known.file_deleted = krie_equal(KRIE_READ(inode, inode, i_nlink), 0);
	answer = krie_decide_runtime_integrity_usermode_helper(&known, can);
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	record = krie_reserve_runtime_integrity_usermode_helper();
	if (!record)
		return error;
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_usermode_helper(record, &known);
	krie_submit_runtime_integrity_usermode_helper(record);
	return error;
}

/* security_bprm_check(bprm). Whoever executes a file has memory of its own; not so the thread that the kernel has made for
 * this (since 343f4c49f243 it is no kernel thread by its flags). Of a script the second look, at its interpreter, is none of
 * a program that the kernel has chosen. */
int runtime_integrity_helper_hook(u64 *ctx)
{
	struct linux_binprm *program = (struct linux_binprm *)ctx[0];

	if (krie_own_child() || krie_has_memory() ||
	    KRIE_READ(linux_binprm, program, filename) != KRIE_READ(linux_binprm, program, interp) || !krie_enter())
		return 0;
	return runtime_integrity_helper(program, KRIE_CAN_REFUSE | KRIE_CAN_REFUSE_KERNEL);
}

/* sched_process_exec(task, old_pid, bprm): where no hook can be had. It runs the program already, by its flags and memory. */
int runtime_integrity_helper_executed(struct bpf_raw_tracepoint_args *ctx)
{
	if (krie_own_child() || !runtime_integrity_is_helper() || !krie_enter())
		return 0;
	return runtime_integrity_helper((struct linux_binprm *)ctx->args[2], KRIE_CAN_KILL);
}
