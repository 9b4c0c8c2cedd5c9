/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Acts: what only a right permits. The right is looked at again where it is done, behind the kernel's own check, or
 * where that one is missing. Neither the task's own credentials nor those that it acts by may have it: an overlay does
 * for whoever writes what only who mounted it may, and that is legal.
 */

#define CFI_READING_MODULE 2 /* enum kernel_read_file_id and kernel_load_data_id */

/* Kernel threads work for others, by rules of their own. */
static __always_inline bool cfi_enter(void)
{
	return krie_enter() && !(KRIE_READ(task_struct, krie_current(), flags) & KRIE_PF_KTHREAD);
}

/* Decide about an act without a right, and tell it. `inode` and `dentry` are NULL where there is none. */
static __always_inline int cfi_without_right(u8 act, struct inode *inode, struct dentry *dentry, u32 mode)
{
	struct super_block *super = KRIE_READ(inode, inode, i_sb); /* of none, as all of it, 0 */
	struct cred *own = cfi_own(), *acting = cfi_acting();
	struct cfi_act_inline known = {
		.fsuid = KRIE_READ(cred, own, fsuid.val),
		.acting_fsuid = KRIE_READ(cred, acting, fsuid.val),
		.act = act,
		.foreign = 1 - cfi_is_first(KRIE_READ(cred, own, user_ns)),
	};
	struct krie_answer answer;
	struct cfi_act *record;
	int error;

	krie_forget(&known, sizeof(known));
	answer = krie_decide_cfi_act(&known, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	record = krie_reserve_cfi_act(&answer, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (!record)
		return krie_error(&answer);
	error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_cfi_act(record, &known);
	record->ino = KRIE_READ(inode, inode, i_ino);
	record->dev = KRIE_READ(super_block, super, s_dev);
	record->owner = KRIE_READ(inode, inode, i_uid.val);
	record->mode = mode;
	bpf_probe_read_kernel_str(record->name, sizeof(record->name), KRIE_READ(dentry, dentry, d_name.name));
	krie_submit_cfi_act(record);
	return error;
}

/* security_kernel_read_file(file, id, contents) and security_kernel_load_data(id, contents): behind the question for
 * CAP_SYS_MODULE, before anything of the module is read. */
static __always_inline int cfi_module(u32 what, struct file *file)
{
	struct inode *inode = KRIE_READ(file, file, f_inode);

	if (what != CFI_READING_MODULE || !cfi_enter() || cfi_may(1ULL << CFI_CAP_SYS_MODULE))
		return 0;
	return cfi_without_right(CFI_ACT_ACT_MODULE, inode, KRIE_READ(file, file, f_path.dentry),
				 KRIE_READ(inode, inode, i_mode));
}

int cfi_read_file(u64 *ctx)
{
	return cfi_module((u64)krie_argument(ctx, 1), krie_argument(ctx, 0));
}

int cfi_load_data(u64 *ctx)
{
	return cfi_module((u64)krie_argument(ctx, 0), NULL);
}

/* Where mounts of the task's namespace are changed, behind the question for the right to:
 * security_sb_kern_mount(super), security_move_mount(from, to), security_sb_umount(mount, flags). security_sb_mount()
 * comes before it. */
int cfi_mount(u64 *ctx)
{
	struct nsproxy *namespaces;
	struct mnt_namespace *mounts;
	struct user_namespace *user;

	if (!cfi_enter())
		return 0;
	namespaces = KRIE_READ(task_struct, krie_current(), nsproxy);
	mounts = KRIE_READ(nsproxy, namespaces, mnt_ns);
	user = KRIE_READ(mnt_namespace, mounts, user_ns);
	if (cfi_governs(cfi_own(), user))
		return 0;
	if (cfi_governs(cfi_acting(), user))
		return 0;
	return cfi_without_right(CFI_ACT_ACT_MOUNT, NULL, NULL, 0);
}
