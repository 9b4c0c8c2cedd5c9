/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the agent decided, as programs look it up, and poison: how a decision takes effect in the kernel. Pasted behind
 * the prelude. What a sensor's program does that can refuse:
 *
 *     struct my_plugin_open_inline known = { .operation = ... };     (all fields that the event class marks `Inline`)
 *     struct krie_answer answer = krie_decide_my_plugin_open(&known, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
 *     struct my_plugin_open *record = krie_reserve_my_plugin_open(&answer, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
 *     if (!record)
 *             return krie_error(&answer);
 *     int error = krie_error(&answer);        (0 where the program cannot refuse)
 *     krie_put_my_plugin_open(record, &known);
 *     krie_stamp(&record->header, &answer);
 *     ...submit...
 *     return error;
 *
 * The record comes before the error: where there is none, what only the agent could judge is refused, so that a full
 * ring buffer lets nobody through. Look at it right away, and once: 5.10's verifier does not know, when it is looked at
 * again, whether there is one. A program that can do less says so: KRIE_CAN_KILL only, and no krie_error().
 */

#define KRIE_EPERM 1
#define KRIE_EAGAIN 11
#define KRIE_EINVAL 22
#define KRIE_SIGKILL 9
#define KRIE_TGID_INIT 1

KRIE_FOUND("hash", struct krie_process, struct krie_verdict, krie_poisoned, KRIE_VERDICTS);
KRIE_STATE("hash", struct krie_process, struct krie_verdict, krie_verdicts, KRIE_VERDICTS);

KRIE_FOUND("array", u32, struct krie_busy, krie_busy, 1);

/* How many poisoned processes each user has, by krie_share_now(). */
KRIE_FOUND("array", u32, u32, krie_shares, KRIE_SHARES);

KRIE_STATE("array", u32, struct krie_settings, krie_settings, 1);

/* Executables that no verdict may hit. */
KRIE_STATE("hash", struct krie_file, u32, krie_protected, 1024);

/* Which sensors are in enforce mode, by KRIE_SENSOR_<NAME>. */
KRIE_STATE("array", u32, u32, krie_enforcing, KRIE_SENSORS);

/* What came of a decision. Small, since several programs' stacks are full. */
struct krie_answer {
	u64 digest; /* of the attempt: krie_digest() */
	u32 rule;
	u32 error;
	u32 generation;
	u16 failure; /* why the signal was not taken */
	u8 done;
	u8 by; /* KRIE_BY_... */
};

static __always_inline struct krie_busy *krie_busy_now(void)
{
	u32 zero = 0;

	return krie_busy.lookup(&zero);
}

/* Whose share of the room for poisoned processes the current one takes. */
static __always_inline u16 krie_share_now(void)
{
	u32 payer = krie_payer();

	return (payer & (KRIE_SHARES / 2 - 1)) | payer >> 31 << 15;
}

static __always_inline bool krie_find_poison(struct krie_process *process, struct krie_verdict *found)
{
	struct krie_verdict *verdict = krie_poisoned.lookup(process);

	if (!verdict)
		return false;
	*found = *verdict;
	return found->process.tgid == process->tgid && found->process.start_time == process->start_time &&
	       found->until > bpf_ktime_get_boot_ns();
}

static __always_inline bool krie_find_verdict(struct krie_process *process, struct krie_verdict *found)
{
	struct krie_verdict *verdict = krie_verdicts.lookup(process);

	if (!verdict)
		return false;
	*found = *verdict;
	return found->process.tgid == process->tgid && found->process.start_time == process->start_time &&
	       found->process.kind == process->kind && found->until > bpf_ktime_get_boot_ns();
}

static __always_inline bool krie_is_protected(void)
{
	struct krie_image *noted;
	u32 lost;

	if (!krie_has_memory())
		return true; /* a kernel thread */
	noted = krie_current_image(&lost);
	return noted && !lost && krie_protected.lookup(&noted->file);
}

static __always_inline void krie_unpoison(struct krie_process *process)
{
	struct krie_verdict *known = krie_poisoned.lookup(process);
	struct krie_busy *busy = krie_busy_now();
	u32 number, *share;

	if (!known || !busy)
		return;
	number = known->share;
	share = krie_shares.lookup(&number);
	if (!share || krie_poisoned.delete(process))
		return;
	__sync_fetch_and_add(&busy->poisoned, -1);
	__sync_fetch_and_add(share, -1);
}

/* Add a process, or prolong its time, whose rule and error stay the first one's. False where there is no room for
 * another one of this user's, who may have as many as are still free: one user alone gets half of the room, and leaves
 * some to whoever comes next. Programs that run at once may each add one beyond that; the agent may, having made room
 * elsewhere. */
static __always_inline bool krie_poison(struct krie_verdict *verdict, bool beyond_share)
{
	struct krie_verdict *known = krie_poisoned.lookup(&verdict->process);
	struct krie_busy *busy = krie_busy_now();
	u32 number = verdict->share;
	u32 *share = krie_shares.lookup(&number);

	if (!busy || !share)
		return false;
	if (known && known->until <= bpf_ktime_get_boot_ns()) {
		krie_unpoison(&verdict->process);
		known = NULL;
	}
	if (!known) {
		if (!beyond_share && (s32)*share >= (s32)(KRIE_VERDICTS - busy->poisoned)) {
			__sync_fetch_and_add(&busy->left_out, 1);
			return false;
		}
		if (!krie_poisoned.insert(&verdict->process, verdict)) {
			__sync_fetch_and_add(&busy->poisoned, 1);
			__sync_fetch_and_add(share, 1);
			return true;
		}
		known = krie_poisoned.lookup(&verdict->process); /* another thread was faster */
		if (!known)
			return false;
	}
	/* The time alone: where the process ends meanwhile, its place may be another one's, which must stay that. */
	if (known->until < verdict->until)
		known->until = verdict->until;
	return true;
}

/* Not one that was prolonged meanwhile: who is poisoned for a while knows when that is over. */
static __always_inline void krie_expire(struct krie_verdict *verdict)
{
	struct krie_verdict *known = krie_poisoned.lookup(&verdict->process);

	if (known && known->until <= verdict->until)
		krie_unpoison(&verdict->process);
}

/* What stands already about this operation of the current process: it is poisoned, or a verdict binds it. */
static __always_inline void krie_standing(u32 kind, struct krie_answer *answer)
{
	struct krie_process process = krie_current_process();
	struct krie_verdict found;

	if (krie_find_poison(&process, &found)) {
		answer->by = KRIE_BY_POISON;
		answer->rule = found.rule;
		answer->error = found.error;
		return;
	}
	process.kind = kind;
	if (krie_find_verdict(&process, &found)) {
		answer->by = KRIE_BY_VERDICT;
		answer->rule = found.rule;
		answer->error = found.error;
	}
}

/* Whom nothing may hit: tgid 1, the agent and its canaries, kernel threads (unless `kernel_too`, which is constant),
 * protected programs; and everybody while nothing is armed. */
static __always_inline bool krie_is_spared(u32 tgid, const bool kernel_too)
{
	u32 zero = 0;
	struct krie_agent_state *agent = krie_agent.lookup(&zero);

	return !agent || !agent->armed || tgid == KRIE_TGID_INIT || tgid == agent->tgid || krie_is_own_child(agent) ||
	       (!(kernel_too && !krie_has_memory()) && krie_is_protected());
}

/* An attempt that the agent cannot be told of, if it would have to judge it. Whoever floods a kind, or the ring as many
 * users, could else do one more thing of it unseen. */
static __always_inline void krie_refuse_unjudged(u32 slot, struct krie_answer *answer)
{
	u32 *importance = krie_importance.lookup(&slot);

	if (answer->by || !importance || !(*importance & KRIE_UNJUDGED))
		return;
	if (krie_is_spared(KRIE_LOAD(task_struct, krie_current_btf(), tgid), false))
		return;
	answer->by = KRIE_BY_BUDGET;
	answer->error = KRIE_EAGAIN;
}

static __always_inline void krie_signal(struct krie_answer *answer)
{
	long refused = bpf_send_signal(KRIE_SIGKILL);

	answer->done |= refused ? KRIE_DONE_KILL_FAILED : KRIE_DONE_KILLED;
	if (refused)
		answer->failure = krie_at_most(0 - refused, 4095);
}

/* Poison the current process and then, in the same run, kill it: a process that leaves the kernel by an iretq of its
 * own runs a whole system call before the signal is looked at. Does nothing unless the sensor enforces. */
static __always_inline struct krie_answer krie_kill(u32 sensor)
{
	u32 zero = 0;
	u32 *enforcing = krie_enforcing.lookup(&sensor);
	struct krie_settings *settings = krie_settings.lookup(&zero);
	struct krie_verdict verdict = {};
	struct krie_answer answer = {};

	if (!enforcing || !*enforcing || !settings)
		return answer;
	verdict.process = krie_current_process();
	if (krie_is_spared(verdict.process.tgid, false))
		return answer;
	verdict.share = krie_share_now();
	verdict.until = bpf_ktime_get_boot_ns() + settings->poison_ns;
	verdict.error = KRIE_EPERM;
	answer.by = KRIE_BY_PROGRAM;
	answer.error = KRIE_EPERM;
	answer.done = krie_poison(&verdict, false) ? KRIE_DONE_POISONED : KRIE_DONE_POISON_FAILED;
	krie_signal(&answer);
	return answer;
}

/* The return value of an LSM or fmod_ret program that refuses; 0 where nothing is decided. Subtracted from a zero that
 * clang cannot see, not negated: kernels that check the range of what an LSM program returns (5d99e198be27) do not
 * follow a negation. */
static __always_inline int krie_error(struct krie_answer *answer)
{
	u64 error = answer->error;
	u64 zero = 0;

	error = (error | (0 - krie_truth(error >> 12))) & 4095;
	asm volatile("" : "+r"(error));
	answer->done |= KRIE_DONE_REFUSED * krie_truth(error);
	asm volatile("" : "+r"(zero));
	return zero - error;
}

/* The same for a program on a cgroup. Kernels before b44123b4a3dc give EPERM, whatever the rule asks for. */
static __always_inline int krie_cgroup_answer(struct krie_answer *answer)
{
	if (!answer->error)
		return KRIE_CGROUP_ALLOW;
	answer->done |= KRIE_DONE_REFUSED;
#ifdef KRIE_HAS_SET_RETVAL
	int (*set_retval)(int error) = (void *)187; /* bpf_set_retval, which BCC 0.26 does not name everywhere */

	set_retval(krie_error(answer));
#else
	answer->error = KRIE_EPERM;
#endif
	return !KRIE_CGROUP_ALLOW;
}

/* Say in the record what was done. */
static __always_inline void krie_stamp(struct krie_header *header, struct krie_answer *answer)
{
	header->done = answer->done;
	header->verdict = answer->rule;
	header->decided_by = answer->by;
	header->generation = answer->generation;
	header->errno = answer->failure | answer->error * (1 - krie_truth(answer->failure)) *
					      krie_equal(answer->done & KRIE_DONE_REFUSED, KRIE_DONE_REFUSED);
}

/* Change the poisoned processes together with their number, or the flags beside it. Run by the agent with
 * BPF_PROG_TEST_RUN; the arguments are what to do, tgid (or flags), start time, end, rule, error and, above its 16
 * bits, share. */
int krie_change(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_busy *busy = krie_busy_now();
	struct krie_verdict verdict = {};

	if (ctx->args[KRIE_SECRET_ARGUMENT] != krie_secret())
		return 0;
	verdict.process.tgid = ctx->args[1];
	verdict.process.start_time = ctx->args[2];
	verdict.until = ctx->args[3];
	verdict.rule = ctx->args[4];
	verdict.error = ctx->args[5];
	verdict.share = ctx->args[5] >> 16;
	if (ctx->args[0] == KRIE_CHANGE_POISON || ctx->args[0] == KRIE_CHANGE_POISON_BEYOND_SHARE)
		krie_poison(&verdict, ctx->args[0] == KRIE_CHANGE_POISON_BEYOND_SHARE);
	if (ctx->args[0] == KRIE_CHANGE_CLEAR)
		krie_unpoison(&verdict.process);
	if (ctx->args[0] == KRIE_CHANGE_EXPIRE)
		krie_expire(&verdict);
	if (ctx->args[0] == KRIE_CHANGE_FLAGS && busy)
		busy->flags = ctx->args[1];
	return 0;
}
