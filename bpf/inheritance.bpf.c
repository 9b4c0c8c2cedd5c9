/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Poison along the lives of processes: children inherit it, and it ends with its process. Part of the sensor
 * containment. Raw tracepoints, which survive the switches that silence ftrace and kprobes.
 */

/* Whether a process may be poisoned at all, or the agent looks. */
static __always_inline bool containment_any(void)
{
	struct krie_busy *busy = krie_busy_now();

	return busy && (busy->poisoned | (busy->flags & KRIE_BUSY_CANARY));
}

/* sched_process_fork(parent, child): poison is inherited, whatever refused the fork or did not. */
int containment_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	struct krie_process maker;
	struct krie_verdict found;

	if (!containment_any() || !krie_enter())
		return 0;
	if (KRIE_READ(task_struct, child, tgid) != KRIE_READ(task_struct, child, pid))
		return 0; /* a thread */
	maker = krie_current_process();
	if (!krie_find_poison(&maker, &found))
		return 0;
	found.process = krie_process_of(child);
	krie_poison(&found, false);
	return 0;
}

/* The guard ends with the agent: its keeper, nobody's child then, changes maps and runs programs until all is detached.
 */
static __always_inline void containment_end_guard(void)
{
	u32 zero = 0;
	struct krie_busy *busy = krie_busy_now();
	struct krie_agent_state *agent;
	struct signal_struct *group;

	if (!busy || !(busy->flags & KRIE_BUSY_GUARD))
		return;
	agent = krie_agent.lookup(&zero);
	if (!agent || KRIE_LOAD(task_struct, krie_current_btf(), tgid) != agent->tgid)
		return;
	group = KRIE_LOAD(task_struct, krie_current_btf(), signal);
	if (!KRIE_LOAD(signal_struct, group, live.counter))
		busy->flags = 0;
}

/* sched_process_exit(task): run by every thread; the last one finds nobody alive. */
int containment_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct signal_struct *group;
	struct krie_process process;

	containment_end_guard();
	if (!containment_any() || krie_own_child())
		return 0;
	group = KRIE_LOAD(task_struct, krie_current_btf(), signal);
	if (KRIE_LOAD(signal_struct, group, live.counter))
		return 0;
	process = krie_current_process();
	krie_unpoison(&process);
	return 0;
}
