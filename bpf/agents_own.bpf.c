/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What belongs to the agent, and who is a stranger to it: the part of the guard that the programs of the sensors
 * containment and guard share. Every check begins with one read of krie_busy, and ends there while the guard is off.
 */

#define GUARD_PROC_MAGIC 0x9fa0 /* include/uapi/linux/magic.h */
#define GUARD_CGROUP_MAGIC 0x27e0eb
#define GUARD_CGROUP2_MAGIC 0x63677270

BPF_TABLE("lru_hash", struct containment_refusal, struct containment_count, containment_counts, 4096);

/* Files that strangers do not open for writing, with the attempt that this is. Of procfs, which has a device for each
 * mount, by inode alone. */
KRIE_STATE("hash", struct krie_file, u32, containment_files, 256);

/* The agent's own folders: strangers change no name in them, and open nothing there for writing. */
KRIE_STATE("hash", struct krie_file, u32, containment_folders, 16);

/* Ids of the mounts that the agent uses, which no other mount namespace has; and the folders on the way to its own. */
KRIE_STATE("hash", u32, u32, containment_mounts, 64);
KRIE_STATE("hash", struct krie_file, u32, containment_ways, 256);

/* The agent's cgroup and those above it, by containment_cgroup_key(), with when that was last seen. */
BPF_HASH(containment_cgroups, u64, u64, 1024);

static __always_inline void containment_note(struct krie_process *process, u32 operation, u32 rule)
{
	struct containment_refusal refusal = {
		.start_time = process->start_time,
		.tgid = process->tgid,
		.operation = operation,
	};
	struct containment_count first = { .count = 1, .rule = rule };
	struct containment_count *known = containment_counts.lookup(&refusal);

	if (known)
		__sync_fetch_and_add(&known->count, 1);
	else
		containment_counts.update(&refusal, &first);
}

static __always_inline int containment_error(u32 error)
{
	struct krie_answer answer = { .error = error };

	return krie_error(&answer);
}

/* Whether the agent guards itself, and this is neither itself, nor tgid 1, nor the kernel. */
static __always_inline bool containment_stranger(struct krie_process *process, u32 *agent_tgid)
{
	u32 zero = 0;
	struct krie_busy *busy = krie_busy_now();
	struct krie_agent_state *agent;

	if (!busy || !(busy->flags & KRIE_BUSY_GUARD))
		return false;
	agent = krie_agent.lookup(&zero);
	if (!agent || !agent->armed || !KRIE_LOAD(task_struct, krie_current_btf(), mm))
		return false;
	*process = krie_current_process();
	*agent_tgid = agent->tgid;
	return process->tgid != agent->tgid && process->tgid != KRIE_TGID_INIT;
}

/* The same, also not a child of the agent's: its keeper and the process that compares code run its programs. */
static __always_inline bool containment_outsider(struct krie_process *process, u32 *agent_tgid)
{
	u32 zero = 0;
	struct krie_agent_state *agent;

	if (!containment_stranger(process, agent_tgid))
		return false;
	agent = krie_agent.lookup(&zero);
	return agent && !krie_is_own_child(agent);
}

/* Whether a task is the agent, or a child: an evaluator that is stopped decides nothing, and a keeper keeps nothing.
 * What a child does to itself, such as abort(), is its own business. */
static __always_inline bool containment_of_agent(struct task_struct *task, struct krie_process *process, u32 agent)
{
	struct task_struct *parent = KRIE_READ(task_struct, task, real_parent);
	u32 tgid = KRIE_READ(task_struct, task, tgid);

	return tgid == agent || (tgid != process->tgid && KRIE_READ(task_struct, parent, tgid) == agent);
}

static __always_inline int containment_guard(struct krie_process *process, u32 operation)
{
	containment_note(process, operation, 0);
	return containment_error(KRIE_EPERM);
}

#ifdef KRIE_HAS_kernfs_node____parent
#define containment_above(node) KRIE_READ(kernfs_node, node, __parent)
#else
#define containment_above(node) KRIE_READ(kernfs_node, node, parent)
#endif

/* The kernel gives the address of a node that is gone to a new one at once; its number only after a long time, but each
 * hierarchy numbers for itself. */
static __always_inline u64 containment_cgroup_key(struct kernfs_node *node)
{
	return (u64)node ^ KRIE_READ(kernfs_node, node, id) * 0x9e3779b97f4a7c15ULL;
}

/* Files of the agent's cgroups that do nothing to it: taking others in, handing controllers on, watching pressure. */
#define GUARD_NAME(name, first, second, third) ((name)[0] == (first) && (name)[1] == (second) && (name)[2] == (third))
static __always_inline bool containment_harmless(struct kernfs_node *node)
{
	const char *text = KRIE_READ(kernfs_node, node, name);
	u64 name[3] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), text);
	return GUARD_NAME(name, 0x702e70756f726763, 0x73636f72, 0) || /* cgroup.procs */
	       GUARD_NAME(name, 0x742e70756f726763, 0x736461657268, 0) || /* cgroup.threads */
	       GUARD_NAME(name, 0x732e70756f726763, 0x635f656572746275, 0x6c6f72746e6f) || /* cgroup.subtree_control */
	       GUARD_NAME(name, 0x736b736174, 0, 0) || /* tasks */
	       GUARD_NAME(name, 0x736572702e757063, 0x65727573, 0) || /* cpu.pressure */
	       GUARD_NAME(name, 0x702e79726f6d656d, 0x65727573736572, 0) || /* memory.pressure */
	       GUARD_NAME(name, 0x73736572702e6f69, 0x657275, 0); /* io.pressure */
}

static __always_inline struct krie_file containment_file_of(struct inode *inode)
{
	struct super_block *super = KRIE_READ(inode, inode, i_sb);
	struct krie_file file = {
		.ino = KRIE_READ(inode, inode, i_ino),
		.dev = KRIE_READ(super_block, super, s_dev),
		.generation = KRIE_READ(inode, inode, i_generation),
	};

	return file;
}

/* A change of a file, or folder, that is not of its content: what a stranger may not, in the agent's folders neither.
 */
static __always_inline int containment_guard_file(struct dentry *dentry)
{
	struct krie_process process;
	struct krie_file file, folder;
	struct dentry *parent;
	u32 agent;

	if (!containment_outsider(&process, &agent))
		return 0;
	parent = KRIE_READ(dentry, dentry, d_parent);
	folder = containment_file_of(KRIE_READ(dentry, parent, d_inode));
	file = containment_file_of(KRIE_READ(dentry, dentry, d_inode));
	if (containment_files.lookup(&file) || containment_folders.lookup(&file) || containment_folders.lookup(&folder))
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	return 0;
}

/* A new name in one of the agent's own folders. */
static __always_inline int containment_guard_folder(struct inode *folder)
{
	struct krie_process process;
	struct krie_file file;
	u32 agent;

	if (!containment_outsider(&process, &agent))
		return 0;
	file = containment_file_of(folder);
	if (containment_folders.lookup(&file))
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	return 0;
}

/* A file below /proc: whether it is one of the agent's process, and which it is otherwise. */
static __always_inline bool containment_of_agents_proc(struct inode *inode, struct krie_process *process, u32 agent)
{
	struct proc_inode *entry = (void *)inode - __builtin_offsetof(struct proc_inode, vfs_inode);
	struct pid *pid = KRIE_READ(proc_inode, entry, pid);
	struct hlist_node *node;

	if (!pid)
		return false;
	node = KRIE_READ(pid, pid, tasks[0].first);
	if (!node)
		return false;
	return containment_of_agent((void *)node - __builtin_offsetof(struct task_struct, pid_links), process, agent);
}

/* An open for writing by anybody: what a stranger may not. */
static __always_inline int containment_guard_open(struct file *file)
{
	struct inode *inode, *folder;
	struct super_block *super;
	struct krie_process process;
	struct krie_file opened;
	struct dentry *dentry;
	u32 agent, magic;
	u32 *attempt;

	if (!containment_stranger(&process, &agent))
		return 0;
	inode = KRIE_READ(file, file, f_inode);
	super = KRIE_READ(inode, inode, i_sb);
	magic = KRIE_READ(super_block, super, s_magic);
	opened = containment_file_of(inode);
	if (magic == GUARD_PROC_MAGIC) {
		if (containment_of_agents_proc(inode, &process, agent))
			return containment_guard(&process, CONTAINMENT_PROC_WRITTEN);
		opened.dev = opened.generation = 0;
	}
	attempt = containment_files.lookup(&opened);
	if (attempt)
		return containment_guard(&process, *attempt);
	if (magic == GUARD_CGROUP2_MAGIC || magic == GUARD_CGROUP_MAGIC) {
		struct kernfs_node *node = KRIE_READ(inode, inode, i_private);
		u64 above = containment_cgroup_key(containment_above(node));

		if (containment_cgroups.lookup(&above) && !containment_harmless(node))
			return containment_guard(&process, CONTAINMENT_CGROUP_WRITTEN);
		return 0;
	}
	dentry = KRIE_READ(file, file, f_path.dentry);
	dentry = KRIE_READ(dentry, dentry, d_parent);
	folder = KRIE_READ(dentry, dentry, d_inode);
	opened = containment_file_of(folder);
	attempt = containment_folders.lookup(&opened);
	if (attempt && *attempt)
		return containment_guard(&process, CONTAINMENT_FILES_CHANGED);
	return 0;
}
