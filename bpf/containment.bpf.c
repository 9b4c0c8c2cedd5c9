/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The guarded operations: what a poisoned process can no longer do, one tiny program each, at LSM hooks or (fmod_ret)
 * at the functions that call them. The same C serves both. While nobody is poisoned each reads one array element.
 *
 * Refusals are counted, not sent: a poisoned process that tries in a loop must not fill the ring buffer.
 */

#define CONTAINMENT_FILE_OPEN 1
#define CONTAINMENT_INODE_CREATE 2
#define CONTAINMENT_INODE_UNLINK 3
#define CONTAINMENT_INODE_RENAME 4
#define CONTAINMENT_INODE_SETATTR 5
#define CONTAINMENT_BPRM_CHECK_SECURITY 6
#define CONTAINMENT_MMAP_FILE 7
#define CONTAINMENT_FILE_MPROTECT 8
#define CONTAINMENT_TASK_ALLOC 9
#define CONTAINMENT_TASK_KILL 10
#define CONTAINMENT_TASK_FIX_SETUID 11
#define CONTAINMENT_PTRACE_ACCESS_CHECK 12
#define CONTAINMENT_SOCKET_CREATE 13
#define CONTAINMENT_SOCKET_CONNECT 14
#define CONTAINMENT_SB_MOUNT 15
#define CONTAINMENT_BPF 16
#define CONTAINMENT_KERNEL_READ_FILE 17
#define CONTAINMENT_KERNEL_LOAD_DATA 18

#define CONTAINMENT_PROT_EXEC 4 /* include/uapi/asm-generic/mman-common.h */
#define CONTAINMENT_PTRACE_MODE_ATTACH 0x02 /* include/linux/ptrace.h */
#define CONTAINMENT_FMODE_WRITE 2 /* include/linux/fs.h */

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

/* security_file_open(file): the one hook on a path so hot that the program's own instructions are counted. Where only the
 * guard is on, an open for reading ends after one array element and one field. */
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
	return containment_refuse(CONTAINMENT_FILE_OPEN);
}

/* security_mmap_file(file, prot, flags); the LSM hook has what was asked for as its second argument, too */
int containment_mmap_file(u64 *ctx)
{
	if (!(ctx[1] & CONTAINMENT_PROT_EXEC))
		return 0;
	return containment_refuse(CONTAINMENT_MMAP_FILE);
}

/* security_file_mprotect(vma, asked, prot) */
int containment_file_mprotect(u64 *ctx)
{
	if (!(ctx[1] & CONTAINMENT_PROT_EXEC))
		return 0;
	return containment_refuse(CONTAINMENT_FILE_MPROTECT);
}

/* security_task_kill(task, info, signal, cred): not asked for the kernel's own signals, such as a terminal's Ctrl-C */
int containment_task_kill(u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct krie_process process;
	u32 agent;

	if (containment_stranger(&process, &agent) && (u32)ctx[2] && containment_of_agent(task, &process, agent))
		return containment_guard(&process, GUARD_AGENT_SIGNALLED);
	return containment_refuse(CONTAINMENT_TASK_KILL);
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
		return containment_guard(&process, GUARD_AGENT_TRACED);
	return containment_refuse(CONTAINMENT_PTRACE_ACCESS_CHECK);
}

/* security_bpf(command, attributes, size) */
int containment_bpf(u64 *ctx)
{
	int error = containment_guard_bpf(ctx[0], (void *)ctx[1]);

	if (error)
		return error;
	return containment_refuse(CONTAINMENT_BPF);
}

int containment_inode_create(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_INODE_CREATE);
}

int containment_inode_unlink(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_INODE_UNLINK);
}

int containment_inode_rename(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_INODE_RENAME);
}

int containment_inode_setattr(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_INODE_SETATTR);
}

int containment_bprm_check_security(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_BPRM_CHECK_SECURITY);
}

int containment_task_alloc(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_TASK_ALLOC);
}

int containment_task_fix_setuid(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_TASK_FIX_SETUID);
}

int containment_socket_create(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_SOCKET_CREATE);
}

int containment_socket_connect(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_SOCKET_CONNECT);
}

int containment_sb_mount(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_SB_MOUNT);
}

int containment_kernel_read_file(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_KERNEL_READ_FILE);
}

int containment_kernel_load_data(u64 *ctx)
{
	return containment_refuse(CONTAINMENT_KERNEL_LOAD_DATA);
}
