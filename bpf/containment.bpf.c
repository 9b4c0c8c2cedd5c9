/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The guarded operations: what a poisoned process can no longer do, one tiny program each, at LSM hooks or (fmod_ret)
 * at the functions that call them. The same C serves both. While nobody is poisoned each reads one array element.
 *
 * Refusals are counted, not sent: a poisoned process that tries in a loop must not fill the ring buffer.
 */

#define CONTAINMENT_FURTHER 8 /* see containment_operation() */
#define CONTAINMENT_READ_IMPLIES_EXEC 0x0400000 /* include/uapi/linux/personality.h */
#define CONTAINMENT_PROT_READ 1
#define CONTAINMENT_PROT_EXEC 4 /* include/uapi/asm-generic/mman-common.h */
#define CONTAINMENT_PTRACE_MODE_ATTACH 0x02 /* include/linux/ptrace.h */
#define CONTAINMENT_FMODE_WRITE 2 /* include/linux/fs.h */
#define CONTAINMENT_FIFREEZE 0xc0045877 /* include/uapi/linux/fs.h */
#define CONTAINMENT_SHUTDOWN 0x8004587d /* FS_IOC_SHUTDOWN, of ext4, XFS, f2fs */
/* _IOC_WRITE, include/uapi/asm-generic/ioctl.h: it takes what is in memory. */
#define CONTAINMENT_IOC_WRITE 0x40000000
#define CONTAINMENT_SET_BPF 0x40042408 /* PERF_EVENT_IOC_SET_BPF, include/uapi/linux/perf_event.h */

/* Number of the operation that this program is for: OPERATIONS in krie/events/operations.py. It is the argument, above
 * CONTAINMENT_FURTHER bits of the further programs for it. */
static __always_inline u32 containment_operation(void)
{
	u32 argument = krie_self() >> 32;

	return argument >> CONTAINMENT_FURTHER ? argument >> CONTAINMENT_FURTHER : argument;
}

/* Whether nobody may be poisoned, and the agent does not look. */
static __always_inline bool containment_idle(void)
{
	struct krie_busy *busy = krie_busy_now();

	return !busy || !(busy->poisoned | (busy->flags & (KRIE_BUSY_HOST | KRIE_BUSY_CANARY)));
}

static __always_inline int containment_refuse(u32 operation)
{
	u32 zero = 0;
	struct krie_busy *busy = krie_busy_now();
	struct krie_agent_state *agent;
	struct krie_settings *settings;
	struct krie_process process;
	struct krie_verdict found;

	if (!busy || !(busy->poisoned | (busy->flags & (KRIE_BUSY_HOST | KRIE_BUSY_CANARY))))
		return 0;
	agent = krie_agent.lookup(&zero);
	settings = krie_settings.lookup(&zero);
	if (!agent || !settings)
		return 0;
	process = krie_current_process();
	if (process.tgid == agent->tgid) {
		krie_canary();
		return 0;
	}
	if (krie_own_child() || !agent->armed)
		return 0;
	if (krie_find_poison(&process, &found)) {
		containment_note(&process, operation, found.rule);
		return containment_error(found.error);
	}
	if (!(busy->flags & KRIE_BUSY_HOST) || settings->host_until <= bpf_ktime_get_boot_ns() ||
	    process.tgid == KRIE_TGID_INIT || krie_is_protected())
		return 0;
	containment_note(&process, operation, settings->host_rule);
	return containment_error(settings->host_error);
}

/* security_file_open(file): the one hook on a path so hot that the program's own instructions are counted. Where only
 * the guard is on, an open for reading ends after one array element and one field. */
int containment_file_open(u64 *ctx)
{
	struct krie_busy *busy = krie_busy_now();
	struct file *file = (struct file *)ctx[0];
	bool writes;

	if (!busy || !(busy->poisoned | busy->flags))
		return 0;
	writes = krie_argument_mode(file) & CONTAINMENT_FMODE_WRITE;
	if (!writes && !busy->poisoned && busy->flags == KRIE_BUSY_GUARD)
		return 0;
	if (writes) {
		int error = containment_guard_open(file);

		if (error)
			return error;
	}
	return containment_refuse(containment_operation());
}

/* Whether memory with this protection can be executed; whoever has the personality READ_IMPLIES_EXEC need not ask for
 * it. */
static __always_inline bool containment_executable(u64 protection)
{
	return protection & CONTAINMENT_PROT_EXEC ||
	       (protection & CONTAINMENT_PROT_READ &&
		KRIE_READ(task_struct, krie_current(), personality) & CONTAINMENT_READ_IMPLIES_EXEC);
}

/* security_mmap_file(file, prot, flags); the LSM hook has what was asked for as its second argument, too */
int containment_mmap_file(u64 *ctx)
{
	if (containment_idle())
		return 0;
	if (!krie_without_type((void *)ctx[0]) && !containment_executable(ctx[1]))
		return 0; /* plain memory; the verifier of some kernels believes that there is always a file */
	return containment_refuse(containment_operation());
}

/* security_file_mprotect(vma, asked, prot) */
int containment_file_mprotect(u64 *ctx)
{
	if (containment_idle() || !containment_executable(ctx[1]))
		return 0;
	return containment_refuse(containment_operation());
}

/* security_capable(cred, user namespace, capability, options): hot where DAC says no. About the process itself, not
 * where the kernel asks for another one. */
int containment_capable(u64 *ctx)
{
	if (containment_idle())
		return 0;
	if (krie_without_type((void *)ctx[0]) != KRIE_READ(task_struct, krie_current(), cred))
		return 0;
	return containment_refuse(containment_operation());
}

/* security_task_kill(task, info, signal, cred): not asked for the kernel's own signals, such as a terminal's Ctrl-C */
int containment_task_kill(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct krie_process process;
	u32 agent;

	if (containment_stranger(&process, &agent) && (u32)ctx[2] && containment_of_agent(task, &process, agent))
		return containment_guard(&process, CONTAINMENT_AGENT_SIGNALLED);
	return containment_refuse(containment_operation());
}

/* security_ptrace_access_check(child, mode) */
int containment_ptrace_access_check(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct krie_process process;
	u32 agent;

	if (!(ctx[1] & CONTAINMENT_PTRACE_MODE_ATTACH))
		return 0;
	if (containment_stranger(&process, &agent) && containment_of_agent(task, &process, agent))
		return containment_guard(&process, CONTAINMENT_AGENT_TRACED);
	return containment_refuse(containment_operation());
}

/* security_bpf(command, attributes, size) */
int containment_bpf(u64 *ctx)
{
	int error = containment_guard_bpf(ctx[0], (void *)ctx[1]);

	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* A hook whose argument is the folder in which a name is made: what the agent is about to make there is not made before
 * it, and differently. */
int containment_inode_make(u64 *ctx)
{
	int error = containment_guard_folder((struct inode *)ctx[0]);

	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* security_inode_link(dentry, folder, new_dentry): by another name, a file of the agent's could be replaced unseen */
int containment_inode_link(u64 *ctx)
{
	int error = containment_guard_file((struct dentry *)ctx[0]);

	if (!error)
		error = containment_guard_folder((struct inode *)ctx[1]);
	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* security_inode_setattr(dentry, attributes); some kernels have a map of ids before both. What is not a dentry is not a
 * file of the agent's. Truncation by a descriptor that was open before, and by open(O_RDONLY | O_TRUNC), passes here
 * too. */
int containment_inode_setattr(u64 *ctx)
{
	int error = containment_guard_file(krie_without_type((void *)ctx[0]));

	if (!error)
		error = containment_guard_file(krie_without_type((void *)ctx[1]));
	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* security_inode_setxattr(dentry, name, ...), security_inode_set_acl() and those that remove; before the dentry as
 * containment_inode_setattr(). An access control list is the mode of a file, too. */
int containment_inode_attribute(u64 *ctx)
{
	int error = containment_guard_file(krie_argument(ctx, 0));

	if (!error)
		error = containment_guard_file(krie_argument(ctx, 1));
	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* A file system that holds the agent's files: frozen, which backups do, too, or shut down. */
static __always_inline int containment_guard_super(struct file *file, u32 command)
{
	struct inode *inode = KRIE_READ(file, file, f_inode);
	struct super_block *super = KRIE_READ(inode, inode, i_sb);
	struct krie_file whole = { .dev = KRIE_READ(super_block, super, s_dev) };
	struct krie_process process;
	u32 agent;

	if (!containment_outsider(&process, &agent) || !containment_files.lookup(&whole))
		return 0;
	if (command == CONTAINMENT_SHUTDOWN)
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	containment_note(&process, CONTAINMENT_FILES_FROZEN, 0);
	return 0;
}

/* security_file_ioctl(file, command, argument): whoever may read a file may have it become immutable (FS_IOC_SETFLAGS),
 * or be of another generation (FS_IOC_SETVERSION), by which the guard would not know it any more. */
int containment_file_ioctl(u64 *ctx)
{
	struct file *file = krie_without_type((void *)ctx[0]);
	int error = 0;

	if ((u32)ctx[1] & CONTAINMENT_IOC_WRITE)
		error = containment_guard_file(KRIE_READ(file, file, f_path.dentry));
	if (!error && ((u32)ctx[1] == CONTAINMENT_FIFREEZE || (u32)ctx[1] == CONTAINMENT_SHUTDOWN))
		error = containment_guard_super(file, ctx[1]);
	if (!error && (u32)ctx[1] == CONTAINMENT_SET_BPF)
		error = containment_guard_event(ctx[2]);
	if (error)
		return error;
	return containment_refuse(containment_operation());
}

/* Everything that is refused whatever its arguments say: each place has its operation's number as argument. */
int containment_hook(u64 *ctx)
{
	return containment_refuse(containment_operation());
}
