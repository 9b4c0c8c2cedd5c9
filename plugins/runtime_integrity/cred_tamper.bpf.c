/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Credentials that changed without the kernel's own way of changing them. What each thread has is noted when it is born
 * and at every commit_creds(), the one function by which a thread changes its own; it is compared where credentials are
 * used for what matters, and before new ones are made of them: what was tampered with must not be noted as legal
 * because something legal followed.
 *
 * Compared is the objective one (real_cred): the subjective one is another for a while wherever the kernel works in
 * somebody's name, see cred_acting.bpf.c. What is derived meanwhile from that other one is never noted: commit_creds()
 * insists on both being the same.
 */

/* Whether what was noted is the current thread's, and nothing has passed unseen since. */
static __always_inline bool runtime_integrity_holds(struct runtime_integrity_creds *noted)
{
	struct task_struct *leader = KRIE_LOAD(task_struct, krie_current_btf(), group_leader);

	return noted && noted->noted && noted->noted >= runtime_integrity_followed() &&
	       noted->start_time == KRIE_LOAD(task_struct, leader, start_boottime);
}

#define RUNTIME_INTEGRITY_PF_IO_WORKER 0x10 /* since 3bfe6106693b; before, none that a new task has */
#define RUNTIME_INTEGRITY_CALL 0xe8

/* Whether commit_creds() calls nobody first, and so no program either: of what was legal meanwhile, nothing is known.
 */
static __always_inline bool runtime_integrity_commits_unseen(void)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	u32 start[2] = {};

	if (!settings || !settings->commit_creds)
		return false;
	if (bpf_probe_read_kernel(start, sizeof(start), (void *)settings->commit_creds))
		return false;
	return (u8)start[0] != RUNTIME_INTEGRITY_CALL && (u8)start[1] != RUNTIME_INTEGRITY_CALL; /* behind an endbr */
}

/* What nobody could be told of, since no record was to be had, is not noted: it is judged again at the next act. With
 * this bit the address of what was noted is that of no credentials. */
#define RUNTIME_INTEGRITY_UNTOLD 1

/* Whether the current thread has other credentials than it was given legally; the result is what the operation shall
 * return or, of a program that cannot refuse, whether that could not be told. `now` is the caller's, and zeros: the
 * stack is too small for two where he has one himself. `own` is 1 where it must act by its own credentials. */
static __always_inline int runtime_integrity_compare_in(struct runtime_integrity_creds *now, u8 operation,
							const u32 can, u64 own)
{
	struct task_struct *task = krie_current();
	u64 key = (u64)task;
	struct runtime_integrity_creds *before = runtime_integrity_shadow.lookup(&key);
	struct runtime_integrity_cred_tamper_inline known = { .operation = operation };
	struct runtime_integrity_cred_tamper *record;
	struct krie_answer answer;
	u64 changed = 0, acting;
	bool ends, learn;
	int error = 0;

	runtime_integrity_read_creds(now, task, KRIE_READ(task_struct, task, real_cred));
	acting = (u64)KRIE_READ(task_struct, task, cred);
	/* Older than the agent, or than the time since when all changes were seen: what it has now counts as its own.
	 */
	ends = KRIE_READ(task_struct, task, flags) & RUNTIME_INTEGRITY_PF_EXITING;
	learn = !ends;
	if (runtime_integrity_holds(before)) {
		changed = runtime_integrity_differs(before, now);
		changed |= runtime_integrity_laxer(&before->seccomp, &now->seccomp) *
			   RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECCOMP;
		changed |= krie_truth(before->cred ^ now->cred) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_POINTER |
			   runtime_integrity_other_blob(before, now) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECURITY |
			   (now->owns & ~before->told_owns) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_INITIAL_NAMESPACE |
			   own * krie_truth(now->cred ^ acting) * krie_truth(before->told ^ (u32)acting) *
			       RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SUBJECTIVE;
		learn = runtime_integrity_settled(before, now); /* from now on it stays */
	}
	if (changed && runtime_integrity_commits_unseen()) {
		runtime_integrity_blind_until(bpf_ktime_get_boot_ns());
		changed = 0;
		learn = true;
	}
	if (!changed) {
		if (learn)
			runtime_integrity_note(krie_current(), now); /* asked for again: the stack is full */
		return 0;
	}
	known.changed = changed;
	known.uid_before = before->words[0];
	known.euid_before = before->words[4];
	known.euid_now = now->words[4];
	now->told_owns = now->owns;
	now->told = acting;
	answer = krie_decide_runtime_integrity_cred_tamper(&known, can);
	record = krie_reserve_runtime_integrity_cred_tamper(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : RUNTIME_INTEGRITY_UNTOLD;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_cred_tamper(record, &known);
	record->cred = now->cred;
	krie_submit_runtime_integrity_cred_tamper(record);
	runtime_integrity_note(krie_current(), now); /* everything is told once */
	return error;
}

static __always_inline int runtime_integrity_compare(u8 operation, const u32 can, u64 own)
{
	struct runtime_integrity_creds now = {};

	return runtime_integrity_compare_in(&now, operation, can, own);
}

/* Where nothing is told, since somebody disarmed the programs for the second until the agent arms them again: of what
 * is legal meanwhile, nothing is noted. */
static __always_inline void runtime_integrity_commit_untold(void)
{
	u32 zero = 0;
	struct krie_agent_state *agent = krie_agent.lookup(&zero);

	if (agent && !agent->armed)
		runtime_integrity_blind_until(bpf_ktime_get_boot_ns());
}

/* Commits that the second program noted and the first one did not. What the kernel left out of the first one's runs,
 * but for these, passed both: kernels before 6.7 count nothing that kprobes miss, nor does any where kprobes are off.
 */
BPF_ARRAY(runtime_integrity_made_up, u64, 1);

static __always_inline void runtime_integrity_make_up(u64 by)
{
	u32 zero = 0;
	u64 *made_up = runtime_integrity_made_up.lookup(&zero);

	if (made_up)
		__sync_fetch_and_add(made_up, by);
}

/* commit_creds(new): the current thread is about to have `new`. Two programs do this, since one run that is missed
 * would make an attack of what was none. The kernel leaves a program at a function's entry out where another thread was
 * preempted in the same one on this CPU: whoever has threads that he keeps from going on can cause that, of as many
 * such programs as there are. So the second one is that of a kprobe, which nobody preempts: it is left out only while
 * bpf(2) changes a map on this CPU, which not everybody may, and amid which nobody preempts the agent. Whichever
 * runs behind the other has nothing left to do; where that is the first one, there was nothing to make up for.
 *
 * What the thread has until now is compared once more, whoever made `new`: keyctl's KEYCTL_SESSION_TO_PARENT lets a
 * child. */
static __always_inline int runtime_integrity_commit(const struct cred *new, const bool first)
{
	u64 task = (u64)krie_current();
	struct runtime_integrity_creds creds = {};
	struct runtime_integrity_creds *noted;

	if (!krie_enter()) {
		runtime_integrity_commit_untold();
		return 0;
	}
	noted = runtime_integrity_shadow.lookup(&task);
	if (runtime_integrity_holds(noted)) {
		if ((noted->cred & ~(u64)RUNTIME_INTEGRITY_UNTOLD) == (u64)new) {
			if (first)
				runtime_integrity_make_up(-1);
			return 0;
		}
		if (runtime_integrity_compare_in(&creds, RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_COMMIT, KRIE_CAN_KILL,
						 1)) {
			/* Noted, it would be legal. But it was seen: the other program has nothing to do, and once the
			 * old credentials are freed, none at their address pass for them. */
			noted = runtime_integrity_shadow.lookup(&task);
			if (!noted)
				return 0;
			noted->cred = (u64)new;
			asm volatile("" ::: "memory"); /* the verifier lets nobody calculate with `new`, a pointer */
			noted->cred |= RUNTIME_INTEGRITY_UNTOLD;
			if (!first)
				runtime_integrity_make_up(1);
			return 0;
		}
	}
	runtime_integrity_read_creds(&creds, krie_current(), new);
	/* What does not count yet, as while ftrace is switched, the first one does not take back. */
	if (runtime_integrity_note(krie_current(), &creds) && !first && creds.noted >= runtime_integrity_followed())
		runtime_integrity_make_up(1);
	return 0;
}

int runtime_integrity_commit_fentry(u64 *ctx)
{
	return runtime_integrity_commit((const struct cred *)ctx[0], true);
}

int runtime_integrity_commit_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_commit((const struct cred *)PT_REGS_PARM1(ctx), false);
}

/* Where there are no kprobes. */
int runtime_integrity_commit_again(u64 *ctx)
{
	return runtime_integrity_commit((const struct cred *)ctx[0], false);
}

/* security_prepare_creds(new, old, flags): credentials are copied, to be changed or for a child. All that changes a
 * thread's own begins here, and so do fork and exec; who is refused is told that there is no memory. */
int runtime_integrity_cred_prepare_hook(u64 *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_PREPARE,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 0);
}

/* security_bprm_check(bprm) */
int runtime_integrity_cred_exec_hook(u64 *ctx)
{
	if (krie_own_child() || !krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_EXEC, KRIE_CAN_REFUSE | KRIE_CAN_KILL,
					 1);
}

/* security_task_fix_setuid(new, old, flags) */
int runtime_integrity_cred_setuid_hook(u64 *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_SETUID,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 1);
}

/* Behind seccomp(2), and prctl(PR_SET_SECCOMP): what the thread forbade itself is noted. What forbids less than before
 * stays for the next comparison to tell. */
int runtime_integrity_seccomp_set(struct pt_regs *ctx)
{
	u64 task = (u64)krie_current();
	struct runtime_integrity_creds *noted;
	struct runtime_integrity_seccomp now;

	if (!krie_enter())
		return 0;
	noted = runtime_integrity_shadow.lookup(&task);
	if (!runtime_integrity_holds(noted))
		return 0;
	runtime_integrity_read_seccomp(&now, krie_current());
	if (runtime_integrity_laxer(&noted->seccomp, &now))
		return 0;
	now.behind = runtime_integrity_behind(now.filter);
	noted->seccomp = now;
	return 0;
}

/* mnt_get_write_access(mount): a file is about to be opened for writing, made, renamed, removed or changed. Nothing
 * runs where files are only read: a program at security_file_open(), even an empty one, makes each open 2 % dearer. */
static __always_inline int runtime_integrity_cred_write(struct vfsmount *mount)
{
	u64 own = 0;

	if (!krie_enter())
		return 0;
	if (runtime_integrity_acts_by_others())
		own = runtime_integrity_in_own_name() * runtime_integrity_is_users_mount(mount);
	runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_WRITE, KRIE_CAN_KILL, own);
	return 0;
}

int runtime_integrity_cred_write_access(u64 *ctx)
{
	return runtime_integrity_cred_write(krie_without_type((void *)ctx[0]));
}

/* __mnt_want_write(mount), until 3e15dcf77b23 */
int runtime_integrity_cred_want_write(u64 *ctx)
{
	return runtime_integrity_cred_write(krie_without_type((void *)ctx[0]));
}

/* What a thread has that is not legal, wherever its credentials lie. */
static __always_inline u64 runtime_integrity_gained(struct runtime_integrity_creds *legal,
						    struct runtime_integrity_creds *now)
{
	return runtime_integrity_differs(legal, now) |
	       runtime_integrity_other_blob(legal, now) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECURITY |
	       runtime_integrity_laxer(&legal->seccomp, &now->seccomp) * RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECCOMP;
}

/* Of what a child has gained: all that copy_creds() does not give it. Keyrings of its own, and an account, it may get;
 * and in a user namespace that is made with it, and so lies right below its maker's, capabilities and securebits. */
static __always_inline u64 runtime_integrity_not_by_birth(struct runtime_integrity_creds *maker,
							  struct runtime_integrity_creds *child, u64 gained)
{
	const u32 word = RUNTIME_INTEGRITY_WORD(__builtin_offsetof(struct cred, user_ns));
	void *namespace = (void *)runtime_integrity_noted_pointer(child, word);
	u64 parent = (u64)KRIE_READ(user_namespace, namespace, parent);
	u64 made = krie_equal(parent, runtime_integrity_noted_pointer(maker, word));

	return gained &
	       ~(u64)(RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_KEYRINGS | RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_CHARGED |
		      made * (RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_USER_NAMESPACE |
			      RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_CAPABILITIES |
			      RUNTIME_INTEGRITY_CRED_TAMPER_CHANGED_SECUREBITS));
}

/* sched_wakeup_new(child): its maker is about to let it run. Not sched_process_fork(), which says nothing of io_uring's
 * workers (since 3bfe6106693b). Noted is what the child has, which may be other than its maker's own, as in a new user
 * namespace, or where io_uring makes a worker in somebody else's name; but of a maker whose credentials were tampered
 * with, the child keeps what was legal, so that its own first operation tells. So does that of a maker which acts by
 * other credentials than its own: in nobody's name anything but a worker of io_uring is made. And so does one that has
 * more than it is born with: its maker may be held for long between copy_creds() and here, by the memory that
 * CLONE_PARENT_SETTID and CLONE_PIDFD name. */
int runtime_integrity_cred_born(struct bpf_raw_tracepoint_args *ctx)
{
	u64 maker = (u64)krie_current();
	struct task_struct *child = (struct task_struct *)ctx->args[0];
	const struct cred *cred = KRIE_READ(task_struct, child, real_cred);
	const struct cred *own;
	struct runtime_integrity_creds creds = {};
	struct runtime_integrity_creds *legal;
	u64 gained, for_another, illegal;
	u32 worker;

	if (!krie_enter())
		return 0;
	runtime_integrity_read_creds(&creds, child, cred);
	creds.seccomp.behind = runtime_integrity_behind(creds.seccomp.filter);
	legal = runtime_integrity_shadow.lookup(&maker);
	if (runtime_integrity_holds(legal) && (gained = runtime_integrity_gained(legal, &creds))) {
		own = KRIE_READ(task_struct, krie_current(), real_cred);
		for_another = krie_truth((u64)KRIE_READ(task_struct, krie_current(), cred) ^ (u64)own);
		worker = KRIE_READ(task_struct, child, flags) & RUNTIME_INTEGRITY_PF_IO_WORKER;
		illegal = for_another * (1 - krie_truth(worker)) |
			  (1 - for_another) * runtime_integrity_not_by_birth(legal, &creds, gained);
		runtime_integrity_read_creds(&creds, krie_current(), own); /* for there is no room for two */
		if (runtime_integrity_gained(legal, &creds) | illegal) {
			creds = *legal;
			creds.told = creds.told_owns = 0;
			if (creds.cred != (u64)cred) { /* and not shared, as threads do */
				creds.cred = (u64)cred;
				runtime_integrity_take_blob(&creds, cred);
			}
		} else {
			runtime_integrity_read_creds(&creds, child, cred);
			creds.seccomp.behind = runtime_integrity_behind(creds.seccomp.filter);
		}
	}
	runtime_integrity_follow(child, &creds);
	return 0;
}

/* sched_process_exit(task), of every thread */
int runtime_integrity_cred_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = (u64)krie_current();

	krie_own_child();
	if (runtime_integrity_shadow.delete(&task))
		runtime_integrity_unnote(task);
	return 0;
}
