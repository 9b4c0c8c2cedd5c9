/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The agent's heartbeat, what keeps it silent, and where it lives: a timer counts its silence, and what moves or
 * freezes it by its cgroup has no hook, so that is noted, with who did it, where the kernel has a tracepoint.
 */

#define GUARD_LEVELS 16 /* of cgroups */
#define GUARD_CONTROLLERS (sizeof(((struct css_set *)0)->subsys) / sizeof(void *))
#define GUARD_LOOK_NS 100000000ULL /* all CPUs look; one of them counts */
#define GUARD_TASK_STOPPED 0xc /* __TASK_STOPPED, __TASK_TRACED */
#define GUARD_TASK_FROZEN 0x8000 /* since f5d39b020809 */
#define GUARD_PF_FROZEN 0x10000 /* before it */
#define GUARD_TRAP_FREEZE (1 << 23) /* JOBCTL_TRAP_FREEZE */

/* Note where the agent is: what is written there would freeze or kill it. */
static __always_inline void guard_follow(struct kernfs_node *node, const bool root)
{
	u64 now = bpf_ktime_get_boot_ns();

	for (int level = 0; level < GUARD_LEVELS; level++) {
		struct kernfs_node *above = containment_above(node);
		u64 key = containment_cgroup_key(node);

		if (!node || !(above || root))
			return;
		containment_cgroups.update(&key, &now);
		node = above;
	}
}

/* The same of controllers that are hierarchies of v1. Their roots are left out: they cannot be frozen, and container
 * runtimes write there. */
static __always_inline void guard_follow_older(struct css_set *groups, struct cgroup *unified)
{
	struct cgroup_root *root = KRIE_READ(cgroup, unified, root);

#pragma clang loop unroll(disable)
	for (u64 index = krie_uncounted(); index < GUARD_CONTROLLERS && KRIE_GOES_ON; index++) {
		struct cgroup_subsys_state *state = NULL;
		struct cgroup *group;

		bpf_probe_read_kernel(&state, sizeof(state),
				      KRIE_ADDRESS(css_set, groups, subsys) + index * sizeof(state));
		group = KRIE_READ(cgroup_subsys_state, state, cgroup);
		if (KRIE_READ(cgroup, group, root) != root)
			guard_follow(KRIE_READ(cgroup, group, kn), false);
	}
}

KRIE_FOUND("array", u32, struct guard_heart, guard_heart, 1);

/* Run by the agent with BPF_PROG_TEST_RUN, about once a second: it lives, and is in these cgroups. */
int guard_beat(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = krie_current();
	struct css_set *groups = KRIE_READ(task_struct, task, cgroups);
	struct cgroup *group = KRIE_READ(css_set, groups, dfl_cgrp);
	struct guard_heart *heart;
	u32 zero = 0;

	if (ctx->args[KRIE_SECRET_ARGUMENT] != krie_secret())
		return 0;
	heart = guard_heart.lookup(&zero);
	if (!heart)
		return 0;
	heart->task = (u64)task;
	heart->last = heart->looked = bpf_ktime_get_boot_ns();
	heart->stopped = heart->frozen = heart->starved = heart->waited = 0;
	guard_follow(KRIE_READ(cgroup, group, kn), true);
	guard_follow_older(groups, group);
	return 0;
}

/* A CPU clock: while the agent is silent, what keeps it so. */
int guard_silence(struct bpf_perf_event_data *ctx)
{
	struct krie_busy *busy = krie_busy_now();
	struct guard_heart *heart;
	struct task_struct *task;
	u64 now, state, since;
	u32 zero = 0;

	if (!busy || !(busy->flags & KRIE_BUSY_GUARD))
		return 0;
	heart = guard_heart.lookup(&zero);
	now = bpf_ktime_get_boot_ns();
	if (!heart || !heart->last || now < heart->last + GUARD_SILENT_NS || now < heart->looked + GUARD_LOOK_NS)
		return 0;
	task = (struct task_struct *)heart->task;
	since = now - heart->looked;
	heart->looked = now;
#ifdef KRIE_HAS_task_struct____state
	state = KRIE_READ(task_struct, task, __state);
#else
	state = KRIE_READ(task_struct, task, state);
#endif
	if (state & GUARD_TASK_STOPPED)
		heart->stopped += since;
	else if ((state & GUARD_TASK_FROZEN) || (KRIE_READ(task_struct, task, flags) & GUARD_PF_FROZEN) ||
		 (KRIE_READ(task_struct, task, jobctl) & GUARD_TRAP_FREEZE))
		heart->frozen += since;
	else if (!state)
		heart->starved += since;
	else
		heart->waited += since;
	return 0;
}

/* cgroup_attach_task(group, path, task, whole): nothing refuses this; who did it is told, and the guard goes along */
int guard_cgroup_attach_task(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *group = (struct cgroup *)ctx->args[0];
	struct krie_process process;
	u32 agent;

	if (!containment_stranger(&process, &agent) ||
	    KRIE_READ(task_struct, (struct task_struct *)ctx->args[2], tgid) != agent)
		return 0;
	guard_follow(KRIE_READ(cgroup, group, kn), true);
	containment_note(&process, CONTAINMENT_AGENT_MOVED, 0);
	return 0;
}

/* cgroup_freeze(group, path): by a descriptor from before the agent was in there */
int guard_cgroup_freeze(struct bpf_raw_tracepoint_args *ctx)
{
	struct cgroup *group = (struct cgroup *)ctx->args[0];
	struct krie_process process;
	u32 agent;
	u64 key;

	if (!containment_stranger(&process, &agent))
		return 0;
	key = containment_cgroup_key(KRIE_READ(cgroup, group, kn));
	if (containment_cgroups.lookup(&key))
		containment_note(&process, CONTAINMENT_AGENT_FROZEN, 0);
	return 0;
}
