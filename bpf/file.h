/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Files: which one it is, and its path. Included (not pasted), like krie.h.
 */
#ifndef KRIE_FILE_H
#define KRIE_FILE_H

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

#define KRIE_MAP_FILE 0x0070616d2d667062ULL /* "bpf-map": names in kernel/bpf/syscall.c, of what bpf(2) returns */
#define KRIE_PROGRAM_FILE 0x676f72702d667062ULL /* "bpf-prog" */
#define KRIE_LINK_FILE 0x6b6e696c5f667062ULL /* "bpf_link" */

/* The first eight characters of a file's name: of a file that has none in a file system, they tell what private_data
 * is. */
static __always_inline __u64 krie_file_name(struct file *file)
{
	struct dentry *dentry = KRIE_READ(file, file, f_path.dentry);
	__u64 name = 0;

	bpf_probe_read_kernel(&name, sizeof(name), KRIE_READ(dentry, dentry, d_name.name));
	return name;
}

/* Mode of an open file that is an argument of an LSM or fmod_ret program: the verifier knows its type, so that this is
 * one load, where KRIE_READ calls a helper. For what runs at each open. */
static __always_inline __u32 krie_argument_mode(struct file *file)
{
	return *(__u32 *)KRIE_ADDRESS(file, file, f_mode);
}

#define KRIE_OVERLAYFS 0x794c7630 /* OVERLAYFS_SUPER_MAGIC, include/uapi/linux/magic.h */
#define KRIE_STACKED 2 /* FILESYSTEM_MAX_STACK_DEPTH, include/linux/fs.h: file systems that lie on each other */

/* Whether this is an open file, as far as its own fields tell. */
static __always_inline __u64 krie_is_file(struct file *file)
{
	struct address_space *mapping = KRIE_READ(file, file, f_mapping);
	struct inode *inode = KRIE_READ(file, file, f_inode);

	return krie_truth((__u64)mapping) * krie_equal((__u64)KRIE_READ(inode, inode, i_mapping), (__u64)mapping);
}

/* Of a file on an overlayfs the one below that has its content; any other is its own. The overlay keeps it in
 * private_data, and since 87a8a76c34a2 (6.13) behind one more pointer. Where neither is a file, such as of O_PATH, the
 * answer is the file of the overlay. */
static __always_inline struct file *krie_real_file(struct file *file)
{
#pragma unroll
	for (int layer = 0; layer < KRIE_STACKED; layer++) {
		struct inode *inode = KRIE_READ(file, file, f_inode);
		struct super_block *super = KRIE_READ(inode, inode, i_sb);
		struct file *below, *further = NULL;

		if (KRIE_READ(super_block, super, s_magic) != KRIE_OVERLAYFS)
			break;
		below = KRIE_READ(file, file, private_data);
		bpf_probe_read_kernel(&further, sizeof(further), below);
		if (krie_is_file(below))
			file = below;
		else if (krie_is_file(further))
			file = further;
	}
	return file;
}

/* Device, inode and generation of an open file; on an overlayfs, of the file below. */
static __always_inline void krie_identity(struct file *file, __u32 *dev, __u64 *ino, __u32 *generation)
{
	struct inode *inode = KRIE_READ(file, krie_real_file(krie_without_type(file)), f_inode);
	struct super_block *super = KRIE_READ(inode, inode, i_sb);

	*dev = KRIE_READ(super_block, super, s_dev);
	*ino = KRIE_READ(inode, inode, i_ino);
	*generation = KRIE_READ(inode, inode, i_generation);
}

#define KRIE_NAME_LENGTH 256 /* the longest file name, with its end */
#define KRIE_PATH_DEPTH 24 /* components of a path, and mounts crossed, that are followed */

/* Write the path of `file` into a record, last component first, each with its NUL. Mounts are crossed up to the root of
 * the namespace, as for /proc/TGID/exe. Returns 1 where it goes on above. `length` lies in the record, too, whose
 * content the verifier does not follow: with a variable it would look at the 24 steps once for every sum of lengths. */
static __always_inline __u8 krie_path(struct file *file, char *components, const __u32 bytes, __u32 *length)
{
	struct dentry *dentry = KRIE_READ(file, file, f_path.dentry);
	struct vfsmount *vfs = KRIE_READ(file, file, f_path.mnt);
	struct dentry *root = KRIE_READ(vfsmount, vfs, mnt_root);

	for (__u64 step = krie_uncounted(); step < KRIE_PATH_DEPTH && KRIE_GOES_ON; step++) {
		if (dentry == root) {
			struct mount *mount = (void *)vfs - __builtin_offsetof(struct mount, mnt);
			struct mount *over = KRIE_READ(mount, mount, mnt_parent);

			if (over == mount) /* the namespace's root */
				return 0;
			dentry = KRIE_READ(mount, mount, mnt_mountpoint);
			vfs = (void *)over + __builtin_offsetof(struct mount, mnt);
			root = KRIE_READ(vfsmount, vfs, mnt_root);
			continue;
		}
		struct dentry *above = KRIE_READ(dentry, dentry, d_parent);
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

#endif
