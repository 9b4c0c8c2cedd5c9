/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What nobody may do to the agent, beyond what the programs of containment refuse already: one tiny program each, at
 * LSM hooks or (fmod_ret) at the functions that call them.
 */

#define GUARD_MS_MOVE 8192 /* include/uapi/linux/mount.h */
#define GUARD_USED_MAPS 64 /* MAX_USED_MAPS, include/linux/bpf_verifier.h */

/* Counts the agent's canaries. Whether the program has to look further. */
static __always_inline bool guard_enter(struct krie_process *process, u32 *agent_tgid)
{
	struct krie_busy *busy = krie_busy_now();
	struct krie_agent_state *agent;
	u32 zero = 0;

	if (!busy || !(busy->flags & (KRIE_BUSY_GUARD | KRIE_BUSY_CANARY)))
		return false;
	if (busy->flags & KRIE_BUSY_CANARY) {
		agent = krie_agent.lookup(&zero);
		if (agent && KRIE_LOAD(task_struct, krie_current_btf(), tgid) == agent->tgid)
			krie_canary();
	}
	return containment_stranger(process, agent_tgid);
}

/* A hook whose first argument is the task that something is done to. */
static __always_inline int guard_task(u64 *ctx, u32 operation)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) && containment_of_agent((struct task_struct *)ctx[0], &process, agent))
		return containment_guard(&process, operation);
	return 0;
}

/* security_task_setrlimit(task, resource, limit): asked whoever's limit it is, unlike task_prlimit */
int guard_task_setrlimit(u64 *ctx)
{
	return guard_task(ctx, CONTAINMENT_AGENT_LIMITED);
}

int guard_task_setnice(u64 *ctx)
{
	return guard_task(ctx, CONTAINMENT_AGENT_SLOWED);
}

int guard_task_setioprio(u64 *ctx)
{
	return guard_task(ctx, CONTAINMENT_AGENT_SLOWED);
}

/* security_task_setscheduler(task): policy, priority and CPUs */
int guard_task_setscheduler(u64 *ctx)
{
	return guard_task(ctx, CONTAINMENT_AGENT_SLOWED);
}

/* security_task_movememory(task): to another node */
int guard_task_movememory(u64 *ctx)
{
	return guard_task(ctx, CONTAINMENT_AGENT_SLOWED);
}

/* security_file_send_sigiotask(task, owner, signal): by a file whose owner (F_SETOWN) somebody made the agent. Refused
 * in the agent's own context, too: it may be what wakes the file. */
int guard_file_send_sigiotask(u64 *ctx)
{
	struct krie_busy *busy = krie_busy_now();
	struct krie_process process;
	struct krie_agent_state *agent;
	u32 zero = 0;

	if (!busy || !(busy->flags & (KRIE_BUSY_GUARD | KRIE_BUSY_CANARY)))
		return 0;
	agent = krie_agent.lookup(&zero);
	if (!agent)
		return 0;
	process = krie_current_process();
	if (process.tgid == agent->tgid && (busy->flags & KRIE_BUSY_CANARY)) {
		krie_canary();
		return 0;
	}
	if (!(busy->flags & KRIE_BUSY_GUARD) || !agent->armed)
		return 0;
	if (!containment_of_agent((struct task_struct *)ctx[0], &process, agent->tgid))
		return 0;
	if (process.tgid == agent->tgid || !KRIE_LOAD(task_struct, krie_current_btf(), mm))
		process.tgid = process.start_time = 0; /* whoever did this is not here */
	return containment_guard(&process, CONTAINMENT_AGENT_SIGNALLED);
}

/* security_bpf_map(map, mode): whatever way leads to a descriptor, a pin too */
int guard_bpf_map(u64 *ctx)
{
	struct krie_process process;
	u32 agent, number;

	if (!guard_enter(&process, &agent))
		return 0;
	number = KRIE_READ(bpf_map, (struct bpf_map *)ctx[0], id);
	if (containment_own_maps.lookup(&number))
		return containment_hide(&process, CONTAINMENT_MAP_OPENED);
	return 0;
}

/* Whether a program uses a map of the agent's, by whatever descriptor of it. */
static __always_inline bool guard_uses_own_map(struct bpf_prog *program)
{
	struct bpf_prog_aux *aux = KRIE_READ(bpf_prog, program, aux);
	struct bpf_map **maps = KRIE_READ(bpf_prog_aux, aux, used_maps);
	u32 count = KRIE_READ(bpf_prog_aux, aux, used_map_cnt);

#pragma clang loop unroll(disable)
	for (u64 index = krie_uncounted(); index < GUARD_USED_MAPS && KRIE_GOES_ON; index++) {
		struct bpf_map *map = NULL;
		u32 number;

		if (index >= count)
			return false;
		bpf_probe_read_kernel(&map, sizeof(map), maps + index);
		number = KRIE_READ(bpf_map, map, id);
		if (containment_own_maps.lookup(&number))
			return true;
	}
	return false;
}

/* security_bpf_prog(program): before anybody has a descriptor of it, of one that was just loaded, too */
int guard_bpf_prog(u64 *ctx)
{
	struct bpf_prog *program = krie_without_type((void *)ctx[0]);
	struct krie_process process;
	u32 agent;

	if (!guard_enter(&process, &agent))
		return 0;
	if (containment_is_own_program(program))
		return containment_hide(&process, CONTAINMENT_PROGRAM_OPENED);
	if (guard_uses_own_map(program))
		return containment_guard(&process, CONTAINMENT_MAP_WRITTEN);
	return 0;
}

/* Whether a change of names is one of the agent's files: in a folder of its own, or of a file that it guards. */
static __always_inline bool guard_is_own_name(struct inode *folder, struct dentry *dentry)
{
	struct inode *inode = KRIE_READ(dentry, dentry, d_inode);
	struct krie_file file = containment_file_of(folder);

	if (containment_folders.lookup(&file))
		return true;
	if (!inode)
		return false;
	file = containment_file_of(inode);
	return containment_files.lookup(&file) || containment_folders.lookup(&file);
}

/* Whether this is one of the folders of the agent, one above, or a symbolic link on the way: what it opens next by its
 * path would be another's. */
static __always_inline bool guard_is_way(struct dentry *dentry)
{
	struct krie_file file = containment_file_of(KRIE_READ(dentry, dentry, d_inode));

	return containment_ways.lookup(&file) != NULL;
}

static __always_inline int guard_removed(struct inode *folder, struct dentry *dentry)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) && (guard_is_own_name(folder, dentry) || guard_is_way(dentry)))
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	return 0;
}

/* security_inode_unlink(folder, dentry) */
int guard_inode_unlink(u64 *ctx)
{
	return guard_removed((struct inode *)ctx[0], (struct dentry *)ctx[1]);
}

/* security_inode_rmdir(folder, dentry) */
int guard_inode_rmdir(u64 *ctx)
{
	return guard_removed((struct inode *)ctx[0], (struct dentry *)ctx[1]);
}

/* The hook inode_rename(folder, dentry, new_folder, new_dentry); security_inode_rename() has flags behind them. */
int guard_inode_rename(u64 *ctx)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) &&
	    (guard_is_own_name((struct inode *)ctx[0], (struct dentry *)ctx[1]) ||
	     guard_is_own_name((struct inode *)ctx[2], (struct dentry *)ctx[3]) ||
	     guard_is_way((struct dentry *)ctx[1]) || guard_is_way((struct dentry *)ctx[3])))
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	return 0;
}

static __always_inline bool guard_is_own_mount(struct vfsmount *vfs)
{
	u32 number = KRIE_READ(mount, (void *)vfs - __builtin_offsetof(struct mount, mnt), mnt_id);

	return containment_mounts.lookup(&number) != NULL;
}

/* Whether this is one of the folders of the agent, or lies on the way there: what is mounted over it hides them. */
static __always_inline bool guard_is_own_way(struct path *path)
{
	return guard_is_own_mount(KRIE_READ(path, path, mnt)) && guard_is_way(KRIE_READ(path, path, dentry));
}

/* security_sb_umount(mount, flags) */
int guard_sb_umount(u64 *ctx)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) && guard_is_own_mount(krie_without_type((void *)ctx[0])))
		return containment_guard(&process, CONTAINMENT_MOUNTS_CHANGED);
	return 0;
}

/* Whether the root that the current process has is the agent's: then it changes the mounts that the agent sees. */
static __always_inline bool guard_is_own_root(void)
{
	struct fs_struct *fs = KRIE_READ(task_struct, krie_current(), fs);

	return guard_is_own_mount(KRIE_READ(fs_struct, fs, root.mnt));
}

/* security_sb_mount(device, path, type, flags, data): what is moved away has no hook by this call, so nothing is. */
int guard_sb_mount(u64 *ctx)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) &&
	    (guard_is_own_way((struct path *)ctx[1]) || (ctx[3] & GUARD_MS_MOVE && guard_is_own_root())))
		return containment_guard(&process, CONTAINMENT_MOUNTS_CHANGED);
	return 0;
}

/* security_move_mount(from, to) */
int guard_move_mount(u64 *ctx)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) && (guard_is_own_way((struct path *)ctx[1]) ||
					      guard_is_own_mount(KRIE_READ(path, (struct path *)ctx[0], mnt))))
		return containment_guard(&process, CONTAINMENT_MOUNTS_CHANGED);
	return 0;
}

/* security_sb_pivotroot(old, new): it changes the root of all in this namespace who have the old one */
int guard_sb_pivotroot(u64 *ctx)
{
	struct krie_process process;
	u32 agent;

	if (guard_enter(&process, &agent) && guard_is_own_root())
		return containment_guard(&process, CONTAINMENT_MOUNTS_CHANGED);
	return 0;
}
