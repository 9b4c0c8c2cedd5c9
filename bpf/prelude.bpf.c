/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Maps that all sensors share and the functions around them. Pasted in front of the sensors' code, because BCC rewrites
 * map functions only in the main text, and only inside functions (not in macros).
 *
 * What a sensor's program does:
 *
 *     int my_plugin_open(...)
 *     {
 *             if (!krie_enter())
 *                     return 0;
 *             ...filter here: context is only collected for records that are sent...
 *             struct my_plugin_open *record = krie_reserve_my_plugin_open(NULL, 0);
 *             if (!record)
 *                     return 0;
 *             record->inode = ...
 *             krie_submit_my_plugin_open(record);
 *             return 0;
 *     }
 *
 * krie_reserve_<event>() and krie_submit_<event>() are generated. A program that decides gives the first one what it
 * decided and what it can do: see verdict.bpf.c.
 */

/* A map that programs only read: no program writes it, whoever loaded it and however it came by a descriptor. */
#define KRIE_READ_ONLY 128 /* BPF_F_RDONLY_PROG, include/uapi/linux/bpf.h */
#define KRIE_STATE(type, key, value, name, entries) BPF_F_TABLE(type, key, value, name, entries, KRIE_READ_ONLY)

/* A map that programs alone write: by bpf(2) or a mapping nobody does, whoever took a descriptor and when. The kernel
 * does not know the flag: see krie/events/agreed.py. */
#define KRIE_FOUND(type, key, value, name, entries) BPF_F_TABLE(type, key, value, name, entries, KRIE_FROZEN)

/* The sizes of this map and of krie_alive are given when they are made: see krie/loader/compiled.py. */
BPF_RINGBUF_OUTPUT(krie_ring, 1);

KRIE_FOUND("percpu_array", u32, struct krie_count, krie_counts, KRIE_SLOTS);

/* Runs of each program caused by the agent itself: that is how a canary arrives. */
KRIE_FOUND("percpu_array", u32, u64, krie_alive, 1);

KRIE_STATE("array", u32, struct krie_agent_state, krie_agent, 1);

/* A record that nobody waits for wakes the agent only now and then, since that costs more than the record. The next one
 * that somebody does wait for has to wake, then: left to itself, the kernel wakes nobody while anything before it is
 * unread. */
#define KRIE_BACKGROUND_RECORDS                                                                                        \
	32 /* of one kind and CPU: what the agent has to read first then takes it some milliseconds */
BPF_ARRAY(krie_unread, u32, 1); /* whether there may be such records */

static __always_inline u64 krie_wake_at_times(u64 seq)
{
	return seq % KRIE_BACKGROUND_RECORDS ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;
}

/* Before such a record gets its place: who comes behind it finds this set. */
static __always_inline void krie_will_not_wake(void)
{
	u32 zero = 0;
	u32 *unread = krie_unread.lookup(&zero);

	if (unread && !*unread)
		*unread = 1;
}

static __always_inline u64 krie_wake(void)
{
	u32 zero = 0;
	u32 *unread = krie_unread.lookup(&zero);

	if (!unread || !*unread)
		return 0; /* if it has read everything: many at once wake it once */
	*unread = 0;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void krie_canary(void)
{
	u32 program = krie_self();
	u64 *runs = krie_alive.lookup(&program);

	if (runs)
		*runs += 1;
}

static __always_inline bool krie_is_own_child(struct krie_agent_state *agent)
{
	struct task_struct *parent = KRIE_LOAD(task_struct, krie_current_btf(), real_parent);

	return KRIE_LOAD(task_struct, parent, tgid) == agent->tgid;
}

/* Whether the program should go on: the agent is armed, and this is not its own doing. */
static __always_inline bool krie_enter(void)
{
	u32 zero = 0;
	struct krie_agent_state *agent = krie_agent.lookup(&zero);

	if (!agent)
		return false;
	if (KRIE_LOAD(task_struct, krie_current_btf(), tgid) == agent->tgid) {
		krie_canary();
		return false;
	}
	if (agent->armed)
		return true;
	if (krie_is_own_child(agent)) /* canaries run before the agent is armed, too */
		krie_canary();
	return false;
}

/* Number a record that was written. Records that were lost are counted as attempts too, and so take a number. The sums
 * are exact even where a program is preempted by another one on its CPU. The number itself is so only where the kernel
 * can return what it added to (not on 5.10). */
static __always_inline u64 krie_number(u32 slot)
{
	struct krie_count *count = krie_counts.lookup(&slot);

	if (!count)
		return 0;
#ifdef KRIE_HAS_FETCH_ADD
	return __sync_fetch_and_add(&count->attempts, 1);
#else
	u64 number = count->attempts;

	__sync_fetch_and_add(&count->attempts, 1);
	return number;
#endif
}

static __always_inline void krie_lost(u32 slot)
{
	struct krie_count *count = krie_counts.lookup(&slot);

	if (count) {
		__sync_fetch_and_add(&count->attempts, 1);
		__sync_fetch_and_add(&count->lost, 1);
	}
}

/* Whether this is a child of the agent: a canary for what the agent cannot do to itself. */
static __always_inline bool krie_own_child(void)
{
	u32 zero = 0;
	struct krie_agent_state *agent = krie_agent.lookup(&zero);

	if (!agent || !krie_is_own_child(agent))
		return false;
	krie_canary();
	return true;
}

/* What the agent learns about itself and its open files, through the very code that fills every record. Run by the
 * agent with BPF_PROG_TEST_RUN; the argument is a descriptor of its own, or -1. */
struct krie_inspection {
	struct krie_header header;
	struct krie_inspected found;
};
KRIE_FOUND("array", u32, struct krie_inspection, krie_inspected, 1);

int krie_inspect(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	u64 descriptor = ctx->args[0];
	struct krie_inspection *seen = krie_inspected.lookup(&zero);
	struct krie_inspected *found;
	struct bpf_prog_aux *aux;
	struct file *file;
	void *object;

	if (!seen || ctx->args[KRIE_SECRET_ARGUMENT] != krie_secret())
		return 0;
	krie_fill_header(&seen->header);
	found = &seen->found;
	found->tgid_tid = bpf_get_current_pid_tgid();
	found->uid_gid = bpf_get_current_uid_gid();
	bpf_get_current_comm(found->comm, sizeof(found->comm));
	found->file.ino = found->file.dev = found->file.generation = found->holders = 0;
	file = krie_open_file(descriptor);
	if (!file)
		return 0;
	krie_identity(file, &found->file.dev, &found->file.ino, &found->file.generation);
	object = KRIE_READ(file, file, private_data);
	if (krie_file_name(file) == KRIE_MAP_FILE)
		found->holders = KRIE_READ(bpf_map, object, usercnt.counter);
	if (krie_file_name(file) == KRIE_PROGRAM_FILE) {
		aux = KRIE_READ(bpf_prog, object, aux);
		found->holders = KRIE_READ(bpf_prog_aux, aux, refcnt.counter);
	}
	return 0;
}

/* Kernel memory for comparisons in user space. Run by the agent with BPF_PROG_TEST_RUN; the arguments are address and
 * size, at most KRIE_PEEK_BYTES. */
KRIE_FOUND("array", u32, struct krie_peeked, krie_peeked, 1);

int krie_peek(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct krie_peeked *seen = krie_peeked.lookup(&zero);
	u64 size = krie_at_most(ctx->args[1], KRIE_PEEK_BYTES);

	if (seen && ctx->args[KRIE_SECRET_ARGUMENT] == krie_secret())
		seen->failed = bpf_probe_read_kernel(seen->memory, size, (void *)ctx->args[0]) != 0;
	return 0;
}
