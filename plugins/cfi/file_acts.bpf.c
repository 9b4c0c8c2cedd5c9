/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Acts on files: their capabilities, owners and content, and nodes of devices. Behind acts.bpf.c, which tells of them.
 */

#define CFI_REVISION_3 3 /* highest byte of `magic`: VFS_CAP_REVISION_3 */
#define CFI_MODE_WRITE 2 /* FMODE_WRITE, include/linux/fs.h */
#define CFI_ATTR_MODE 1 /* include/linux/fs.h */
#define CFI_ATTR_UID 2
#define CFI_ATTR_SIZE 8
#define CFI_ATTR_FILE (1 << 13)
#define CFI_ATTR_OPEN (1 << 15)
#define CFI_S_IFMT 0170000 /* include/uapi/linux/stat.h */
#define CFI_S_IFREG 0100000
#define CFI_S_IFCHR 0020000
#define CFI_S_IFBLK 0060000
#define CFI_S_ISUID 04000
#define CFI_OTHERS_WRITE 022
#define CFI_CGROUP_V1 0x27e0eb /* CGROUP_SUPER_MAGIC, include/uapi/linux/magic.h */
#define CFI_IMAGE 0xffffffff80000000ULL /* the kernel's own data are above, and what it allocated is below */

/* struct vfs_ns_cap_data; `root` is there in revision 3 only. */
struct cfi_file_capability {
	u32 magic, permitted, inheritable, permitted_high, inheritable_high, root;
};

static __always_inline u64 cfi_is_dentry(void *pointer)
{
	struct inode *inode = KRIE_READ(dentry, pointer, d_inode);
	struct super_block *super = KRIE_READ(dentry, pointer, d_sb);

	return krie_truth((u64)super) * krie_equal((u64)KRIE_READ(inode, inode, i_sb), (u64)super);
}

/* What a security hook was given that changes an inode: some have the mount's mapping of users before all else, which
 * is an object of the kernel's own where the mount maps nobody. */
struct cfi_change {
	void *dentry, *second, *third;
	u64 mapping; /* 1: it comes first */
	u64 maps; /* 1: it does, and maps users */
};

static __always_inline struct cfi_change cfi_change(u64 *ctx)
{
	struct cfi_change change;
	u64 given[4] = {};

	krie_arguments(given, sizeof(given), ctx); /* behind those that there are lies the program's stack */
	change.mapping = 1 - cfi_is_dentry((void *)given[0]);
	change.maps = change.mapping * krie_less(given[0], CFI_IMAGE);
	change.dentry = (void *)(given[0] + (given[1] - given[0]) * change.mapping);
	change.second = (void *)(given[1] + (given[2] - given[1]) * change.mapping);
	change.third = (void *)(given[2] + (given[3] - given[2]) * change.mapping);
	return change;
}

/* security_inode_setxattr(dentry, name, value, size, flags), with the mount's mapping of users before them since
 * c7c7a1a18af4 (5.12). On mounts that have one, what is written for a container's root looks like the machine's. */
int cfi_setxattr(u64 *ctx)
{
	struct cfi_file_capability given = {};
	struct cfi_change change;
	u64 words[3] = {};
	struct inode *inode;

	if (!cfi_enter())
		return 0;
	change = cfi_change(ctx);
	bpf_probe_read_kernel(words, sizeof("security.capability"), change.second);
	if (!(krie_equal(words[0], 0x7974697275636573) & /* "security" */
	      krie_equal(words[1], 0x6c6962617061632e) & /* ".capabil" */
	      krie_equal(words[2], 0x797469) & /* "ity" */ (1 - change.maps)))
		return 0;
	inode = KRIE_READ(dentry, (struct dentry *)change.dentry, d_inode);
	bpf_probe_read_kernel(&given, sizeof(given), change.third);
	/* What gives rights in a user namespace only is the business of who rules there. */
	if (!cfi_is_of_first(KRIE_READ(inode, inode, i_sb)) |
	    (krie_equal(given.magic >> 24, CFI_REVISION_3) & krie_truth(given.root)))
		return 0;
	if (cfi_may(1ULL << CFI_CAP_SETFCAP))
		return 0;
	/* Its root may be the machine's: nobody maps that one without CAP_SETFCAP (db2e718a4798, 5.12). In a namespace
	 * that does not, the kernel writes this only by mistake (CVE-2021-3493). */
	if (krie_equal(given.magic >> 24, CFI_REVISION_3)) {
		if (cfi_may_over(cfi_own(), 1ULL << CFI_CAP_SETFCAP, 0))
			return 0;
		if (cfi_may_over(cfi_acting(), 1ULL << CFI_CAP_SETFCAP, 0))
			return 0;
	}
	return cfi_without_right(CFI_ACT_ACT_FILE_CAPABILITY, inode, change.dentry, KRIE_READ(inode, inode, i_mode));
}

/* Whether permissions on it are decided here, by owner and mode: by local file systems. */
static __always_inline u64 cfi_is_local(u64 magic)
{
	return krie_equal(magic, 0xef53) /* ext2, ext3, ext4 */ | krie_equal(magic, 0x58465342) /* XFS */ |
	       krie_equal(magic, 0x9123683e) /* Btrfs */ | krie_equal(magic, 0xf2f52010) /* F2FS */ |
	       krie_equal(magic, 0x01021994) /* tmpfs */ | krie_equal(magic, KRIE_OVERLAYFS);
}

/* security_inode_setattr(dentry, attributes), with the mount's mapping of users before them since 0e363cf3fa59 (6.0);
 * the hook of this name has it since 6.9. Where mounts may have one and it is not here, nothing can be told. File
 * systems ask for the right behind it (setattr_prepare()), so that who may not is here, too: a chmod(2) of root's file
 * says nothing. But chown(2) always takes the set-uid bit away. Only the kernel's own work leaves it, as ovl_set_attr()
 * in a copy-up.
 *
 * A file is emptied by truncate(2) without being opened, and by O_TRUNC when it is opened for reading. */
int cfi_setattr(u64 *ctx)
{
	struct super_block *super;
	struct cfi_change change;
	struct iattr *attributes;
	struct inode *inode;
	u64 plain, capability;
	u32 valid, mode, uid;
	u8 act;

	if (!cfi_enter())
		return 0;
	change = cfi_change(ctx);
	attributes = change.second;
	plain = 1 - change.maps;
#if defined(KRIE_HAS_vfsmount__mnt_idmap) || defined(KRIE_HAS_vfsmount__mnt_userns)
	plain *= change.mapping;
#endif
	valid = KRIE_READ(iattr, attributes, ia_valid);
	/* By a descriptor that is open for writing, the right was asked for when it was opened. */
	if ((valid & (CFI_ATTR_FILE | CFI_ATTR_OPEN)) == CFI_ATTR_FILE)
		valid &= ~CFI_ATTR_SIZE;
	if (!((valid & (CFI_ATTR_UID | CFI_ATTR_SIZE)) && plain))
		return 0;
	inode = KRIE_READ(dentry, (struct dentry *)change.dentry, d_inode);
	super = KRIE_READ(inode, inode, i_sb);
	mode = KRIE_READ(inode, inode, i_mode);
	uid = KRIE_READ(inode, inode, i_uid.val);
	if ((mode & CFI_S_IFMT) != CFI_S_IFREG)
		return 0;
	if (valid & CFI_ATTR_UID) {
		if (valid & CFI_ATTR_MODE)
			mode = (mode & CFI_S_IFMT) | (KRIE_READ(iattr, attributes, ia_mode) & ~CFI_S_IFMT);
		if (KRIE_READ(iattr, attributes, ia_uid.val) || !uid || !(mode & CFI_S_ISUID))
			return 0;
		act = CFI_ACT_ACT_SETUID_ROOT;
		capability = 1ULL << CFI_CAP_CHOWN;
		uid = 0;
	} else {
		if (mode & CFI_OTHERS_WRITE || cfi_is(uid) || !cfi_is_local(KRIE_READ(super_block, super, s_magic)))
			return 0;
		act = CFI_ACT_ACT_OPEN_FOR_WRITING;
		capability = 1ULL << CFI_CAP_DAC_OVERRIDE;
	}
	if (!cfi_is_of_first(super) | cfi_may_over(cfi_own(), capability, uid))
		return 0;
	if (cfi_may_over(cfi_acting(), capability, uid))
		return 0;
	return cfi_without_right(act, inode, change.dentry, mode);
}

/* Whether a mount maps users: file systems under it have owners that its tasks see as others. */
static __always_inline u64 cfi_maps_users(struct vfsmount *mount)
{
#if defined(KRIE_HAS_vfsmount__mnt_idmap)
	return krie_less((u64)KRIE_READ(vfsmount, mount, mnt_idmap), CFI_IMAGE);
#elif defined(KRIE_HAS_vfsmount__mnt_userns)
	return krie_less((u64)KRIE_READ(vfsmount, mount, mnt_userns), CFI_IMAGE);
#else
	return 0;
#endif
}

/* security_file_open(file). Where the group may write, so may whom an access control list names; and nobody else does
 * by one: the mode's bits of the group are its mask. The open file has the credentials that it is opened by: the acting
 * ones, and those of who gave a file to FUSE for passing through. */
int cfi_open(u64 *ctx)
{
	struct inode *inode;
	struct super_block *super;
	struct dentry *dentry;
	struct cred *opener;
	struct file *file;
	u64 words[2] = {};
	u64 magic;
	u32 mode, uid;

	if (!(krie_argument_mode((struct file *)ctx[0]) & CFI_MODE_WRITE) || !cfi_enter())
		return 0;
	file = krie_without_type((void *)ctx[0]);
	inode = KRIE_READ(file, file, f_inode);
	mode = KRIE_READ(inode, inode, i_mode);
	uid = KRIE_READ(inode, inode, i_uid.val);
	super = KRIE_READ(inode, inode, i_sb);
	magic = KRIE_READ(super_block, super, s_magic);
	dentry = KRIE_READ(file, file, f_path.dentry);
	if (magic == CFI_CGROUP_V1) {
		bpf_probe_read_kernel(words, sizeof("release_agent"), KRIE_READ(dentry, dentry, d_name.name));
		if (!(krie_equal(words[0], 0x5f657361656c6572) & /* "release_" */
		      krie_equal(words[1], 0x746e656761) /* "agent" */) ||
		    cfi_may(1ULL << CFI_CAP_SYS_ADMIN))
			return 0;
		return cfi_without_right(CFI_ACT_ACT_RELEASE_AGENT, inode, dentry, mode);
	}
	opener = (void *)KRIE_READ(file, file, f_cred);
	if ((mode & CFI_S_IFMT) != CFI_S_IFREG || mode & CFI_OTHERS_WRITE || cfi_is_one_of(cfi_own(), opener, uid))
		return 0;
	if (!(cfi_is_local(magic) & cfi_is_of_first(super)) | cfi_maps_users(KRIE_READ(file, file, f_path.mnt)) |
	    cfi_may_over(cfi_own(), 1ULL << CFI_CAP_DAC_OVERRIDE, uid))
		return 0;
	if (cfi_may_over(opener, 1ULL << CFI_CAP_DAC_OVERRIDE, uid))
		return 0;
	return cfi_without_right(CFI_ACT_ACT_OPEN_FOR_WRITING, inode, dentry, mode);
}

/* security_inode_mknod(folder, dentry, mode, device). Without a number it is a whiteout, which everybody may make. */
int cfi_mknod(u64 *ctx)
{
	u32 mode = (u16)(u64)krie_argument(ctx, 2), type = mode & CFI_S_IFMT, device = (u64)krie_argument(ctx, 3);
	struct inode *folder;

	if (!cfi_enter())
		return 0;
	if ((type != CFI_S_IFCHR && type != CFI_S_IFBLK) || !device || cfi_may(1ULL << CFI_CAP_MKNOD))
		return 0;
	folder = krie_argument(ctx, 0);
	if (!cfi_is_of_first(KRIE_READ(inode, folder, i_sb)))
		return 0;
	return cfi_without_right(CFI_ACT_ACT_DEVICE_NODE, folder, krie_argument(ctx, 1), mode);
}
