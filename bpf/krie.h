/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the C of every sensor may use without touching a map: reading kernel memory, tasks, files, paths.
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
#define KRIE_READ(type, pointer, field)                                                                                \
	({                                                                                                             \
		typeof(((struct type *)0)->field) krie_value;                                                          \
		bpf_probe_read_kernel((void *)&krie_value, sizeof(krie_value), KRIE_ADDRESS(type, pointer, field));    \
		krie_value;                                                                                            \
	})

/* The same by one load, where KRIE_READ calls a helper: of what krie_current_btf() gives, and of pointers that were loaded from
 * there with this macro, whose types the verifier follows. What may be NULL needs a check before it is followed. An address
 * to reckon with is for KRIE_READ. */
#ifdef KRIE_HAS_TASK_BTF
#define KRIE_LOAD(type, pointer, field)                                                                                \
	(*(const volatile typeof(((struct type *)0)->field) *)KRIE_ADDRESS(type, pointer, field))
#else
#define KRIE_LOAD KRIE_READ
#endif

/* Which program this is (its index in krie_alive) in the lower half, and its `argument` in the upper one: the loader writes
 * both over this number when it loads a function for one of its places (krie/loader/copies.py), so that the verifier knows
 * them, and what is compiled depends on neither. */
static __always_inline __u64 krie_self(void)
{
	__u64 self = 0x6b72696573656c66ULL; /* "krieself" */

	asm volatile("" : "+r"(self)); /* or clang would reckon with it */
	return self;
}

/* A number of this start that only the agent, its loader and its keeper know: who runs the agent's own programs says it as
 * the argument KRIE_SECRET_ARGUMENT. Written over this one as the number above is. */
#define KRIE_SECRET_ARGUMENT 6
static __always_inline __u64 krie_secret(void)
{
	__u64 secret = 0x6b72696573656372ULL; /* "kriesecr" */

	asm volatile("" : "+r"(secret));
	return secret;
}

/* What a cgroup program returns to let an access through. */
#define KRIE_CGROUP_ALLOW 1

/* Have the verifier forget what it knows of these bytes of the stack, which stay as they are: it then looks once at what
 * comes, and not once for each way that led here. A helper that might write them is called with a size that the verifier
 * takes for up to `size`, and that is 0. They are not really read and written back: an attacker who enters the kernel on a
 * stack of user memory has our programs run on that stack, where the helper that reads kernel memory refuses, and clears what
 * it should have filled. For numbers; for what is about to be decided or told, and not for what runs all the time. */
static __always_inline void krie_forget(void *bytes, const __u32 size)
{
	__u64 none = bpf_ktime_get_ns() >> 63; /* for 292 years */

	asm volatile("" : "+r"(none));
	bpf_probe_read_kernel(bytes, none * size, bytes);
}

/* Last in the condition of a loop: the verifier then looks two or three times at what the loop does, and not once for each
 * round, since this instruction ends any loop at last (may_goto, since 011832b97b31). It must not know the number of the round:
 * count from krie_uncounted(), which must still end the loop long before. Older kernels look at each round, by a number that
 * they know. Takes up to 16 bytes of stack beside the program's own, which together must stay within 512 (6ebc5030e0c5). */
#ifdef KRIE_HAS_bpf_verifier_state__may_goto_depth
#define KRIE_ENDS_AT_LAST true
#define KRIE_GOES_ON                                                                                                   \
	({                                                                                                             \
		__label__ krie_ends, krie_goes_on;                                                                     \
		bool krie_on = true;                                                                                   \
		asm volatile goto("1:.byte 0xe5; .byte 0; .long ((%l[krie_ends] - 1b - 8) / 8) & 0xffff; .short 0"     \
				  :                                                                                    \
				  :                                                                                    \
				  :                                                                                    \
				  : krie_ends);                                                                        \
		goto krie_goes_on;                                                                                     \
	krie_ends:                                                                                                     \
		krie_on = false;                                                                                       \
	krie_goes_on:;                                                                                                 \
		krie_on;                                                                                               \
	})
#else
#define KRIE_ENDS_AT_LAST false
#define KRIE_GOES_ON true
#endif

/* 0, which the verifier takes for up to 16383: jiffies since boot do not reach 2^50. */
static __always_inline __u64 krie_uncounted(void)
{
#ifdef KRIE_HAS_bpf_verifier_state__may_goto_depth
	__u64 (*jiffies)(void) = (void *)118; /* bpf_jiffies64, which is one load */

	return jiffies() >> 50;
#else
	return 0;
#endif
}

/* The same pointer as a number, which may be reckoned with, of an argument whose type the verifier knows. By the helper that
 * reads memory of either kind, bpf_probe_read(): on a stack in user memory, which exploits bring, the one for kernel memory
 * refuses. */
static __always_inline void *krie_without_type(void *pointer)
{
	long (*read_any)(void *to, __u32 size, const void *from) = (void *)4;

	read_any(&pointer, sizeof(pointer), &pointer);
	return pointer;
}

/* Arguments of a security hook, as numbers, from the context's memory: verifiers before 1271a40eeafa (6.16) let no program load
 * a pointer to constant memory that has no type, and those before bb6728d75611 (5.17) none to text. By the helper that reads
 * memory of either kind, as krie_without_type(). */
static __always_inline void krie_arguments(void *to, const __u32 size, __u64 *ctx)
{
	long (*read_any)(void *to, __u32 size, const void *from) = (void *)4;

	read_any(to, size, ctx);
}

/* One of them. */
static __always_inline void *krie_argument(__u64 *ctx, const __u32 index)
{
	void *value = NULL;

	krie_arguments(&value, sizeof(value), ctx + index);
	return value;
}

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

	asm volatile("" : "+r"(borrow)); /* as in krie_truth() */
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
static __always_inline struct task_struct *krie_current_btf(void)
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

#define KRIE_MAP_FILE 0x0070616d2d667062ULL /* "bpf-map": names in kernel/bpf/syscall.c, of what bpf(2) returns */
#define KRIE_PROGRAM_FILE 0x676f72702d667062ULL /* "bpf-prog" */
#define KRIE_LINK_FILE 0x6b6e696c5f667062ULL /* "bpf_link" */

/* The first eight characters of a file's name: of a file that has none in a file system, they tell what private_data is. */
static __always_inline __u64 krie_file_name(struct file *file)
{
	struct dentry *dentry = KRIE_READ(file, file, f_path.dentry);
	__u64 name = 0;

	bpf_probe_read_kernel(&name, sizeof(name), KRIE_READ(dentry, dentry, d_name.name));
	return name;
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

/* Of a file on an overlayfs the one below that has its content; any other is its own. The overlay keeps it in private_data,
 * and since 87a8a76c34a2 (6.13) behind one more pointer. Where neither is a file, such as of O_PATH, the answer is the file
 * of the overlay. */
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
 * the namespace, as for /proc/TGID/exe. Returns 1 where it goes on above. `length` lies in the record, too, whose content
 * the verifier does not follow: with a variable it would look at the 24 steps once for every sum of lengths. */
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
