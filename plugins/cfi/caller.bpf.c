/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * One function at the entry of each locked function. Which one it is comes with krie_self(): CFI_NUMBER. The return
 * address must be one of those that the agent found in the kernel's code, and credentials that gain something must be
 * committed in a system call that may give it, by a task that has the right to it; nothing is sent unless that is not
 * so.
 */

#define CFI_AGAIN_NS 1000000000ULL

KRIE_STATE("array", u32, struct cfi_kernel, cfi_kernel, 1);

/* Who may call. */
KRIE_STATE("hash", struct cfi_place, u32, cfi_legal, 8192);

BPF_PERCPU_ARRAY(cfi_counts, struct cfi_count, CFI_NUMBER + 1);

/* What a check found, on its way from there to what is done about it: programs of kprobes do not interrupt one another.
 */
struct cfi_found {
	u64 return_address, function, gain, number, lock;
};
BPF_PERCPU_ARRAY(cfi_found, struct cfi_found, 1);
BPF_PROG_ARRAY(cfi_failing, 1);

/* Threads that a record was sent for, and when. */
struct cfi_thread {
	u64 start_time;
	u32 tid, function;
};
BPF_TABLE("lru_hash", struct cfi_thread, u64, cfi_told, 1024);

static __always_inline u64 cfi_within(u64 address, u64 begin, u64 end)
{
	return krie_less(address - begin, end - begin);
}

/* `credentials`: the function's first argument are such, which the task is about to get. It is a constant, so that only
 * the program of such a function has what looks at them. */
static __always_inline int cfi_look(struct pt_regs *ctx, bool credentials)
{
	u32 zero = 0, number = (krie_self() >> 32) & CFI_NUMBER;
	struct cfi_place place = { .function = number };
	struct cfi_kernel *kernel;
	struct cfi_count *count;
	struct cfi_found *found;
	u32 gain = 0, call = CFI_NO_CALL, wrong = 0, legal, traced;

	if (!krie_enter())
		return 0;
	kernel = cfi_kernel.lookup(&zero);
	count = cfi_counts.lookup(&number);
	if (!kernel || !count || !(kernel->locked >> number & 1))
		return 0;
	count->checks += 1;
	/* Not readable where the stack is user memory: then it is not a caller's, either. */
	bpf_probe_read_kernel(&place.return_address, sizeof(place.return_address), (void *)ctx->sp);
	if (credentials)
		gain = cfi_gain((void *)ctx->di);
	if (gain) {
		call = cfi_system_call();
		wrong = cfi_wrong((void *)ctx->di, gain, call);
	}
	traced = krie_truth(place.return_address) * (krie_equal(place.return_address, kernel->trampolines[0]) |
						     krie_equal(place.return_address, kernel->trampolines[1]) |
						     krie_equal(place.return_address, kernel->trampolines[2]));
	count->traced += traced;
	/* Who traces a function hides its caller, but not what credentials gain. */
	legal = traced || cfi_legal.lookup(&place);
	if (legal && !wrong)
		return 0;
	count->failed += 1;
	found = cfi_found.lookup(&zero);
	if (!found)
		return 0;
	found->return_address = place.return_address;
	found->function = number;
	found->gain = gain;
	found->number = call;
	found->lock = legal ? wrong : CFI_CALLER_LOCK_CALLER;
	cfi_failing.call(ctx, 0);
	return 0;
}

int cfi_check(struct pt_regs *ctx)
{
	return cfi_look(ctx, false);
}

int cfi_commit(struct pt_regs *ctx)
{
	return cfi_look(ctx, true);
}

/* Whether a record was sent for this thread and function a moment ago; else one is now. */
static __always_inline bool cfi_was_told(u32 function)
{
	struct task_struct *task = krie_current();
	struct cfi_thread thread = {
		.start_time = KRIE_READ(task_struct, task, start_boottime),
		.tid = KRIE_READ(task_struct, task, pid),
		.function = function,
	};
	u64 now = bpf_ktime_get_boot_ns();
	u64 *before = cfi_told.lookup(&thread);

	if (before && now - *before < CFI_AGAIN_NS)
		return true;
	cfi_told.update(&thread, &now);
	return false;
}

/* It was called from elsewhere, or gives what it may not. One program for all functions: each of them is small. */
int cfi_failed(struct pt_regs *ctx)
{
	struct cfi_caller_inline known = {};
	struct cfi_caller *record;
	struct cfi_kernel *kernel;
	struct cfi_found *found;
	struct krie_answer answer;
	u64 address, in_kernel, in_module;
	u32 zero = 0, number;

	found = cfi_found.lookup(&zero);
	kernel = cfi_kernel.lookup(&zero);
	if (!found || !kernel)
		return 0;
	address = found->return_address;
	number = found->function;
	in_kernel = cfi_within(address, kernel->text, kernel->text_end);
	in_module = cfi_within(address, kernel->modules, kernel->modules_end);
	known.function = number;
	known.owner = in_kernel * CFI_CALLER_OWNER_KERNEL + in_module * CFI_CALLER_OWNER_MODULE +
		      (1 - (in_kernel | in_module)) * CFI_CALLER_OWNER_OTHER;
	known.certain = kernel->certain >> number & 1;
	known.gain = found->gain;
	known.lock = found->lock;
	krie_forget(&known, sizeof(known));
	answer = krie_decide_cfi_caller(&known, KRIE_CAN_KILL);
	if (cfi_was_told(number))
		return 0;
	record = krie_reserve_cfi_caller(&answer, KRIE_CAN_KILL);
	if (!record)
		return 0;
	krie_stamp(&record->header, &answer);
	krie_put_cfi_caller(record, &known);
	record->return_address = address;
	record->number = found->number;
	bpf_get_stack(ctx, record->kernel_stack, sizeof(record->kernel_stack), 0);
	krie_submit_cfi_caller(record);
	return 0;
}
