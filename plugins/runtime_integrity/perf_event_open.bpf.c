/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * perf_event_open(2): counters, samples, and the probes (kprobes, uprobes, tracepoints) that are opened by it.
 */

/* Of the flags behind read_format, include/uapi/linux/perf_event.h. */
#define RUNTIME_INTEGRITY_EXCLUDE_KERNEL (1 << 5)

struct runtime_integrity_perf_attr { /* the start of struct perf_event_attr */
	u32 type;
	u32 size;
	u64 config;
	u64 sample_period;
	u64 sample_type;
	u64 read_format;
	u64 flags;
	u32 wakeup_events;
	u32 bp_type;
	u64 config1; /* for kprobe and uprobe the address of a name in user memory */
	u64 config2; /* for these, an offset */
};

static __always_inline bool runtime_integrity_is_perf_open(struct krie_syscall *call)
{
	return call->number == 298 + (336 - 298) * call->compat;
}

/* Whether a type is this one that sysfs gives, if it gives any: 0 is that of hardware. */
static __always_inline u64 runtime_integrity_is_pmu(u32 type, u32 given)
{
	return krie_truth(given) & krie_equal(type, given);
}

/* The kernel's names of what measures, by the types that always have the same number and by those that sysfs gives. */
static __always_inline void runtime_integrity_pmu_of(u32 type, u64 kprobe, u64 uprobe, char *name)
{
	if (kprobe)
		__builtin_memcpy(name, "kprobe", 7);
	else if (uprobe)
		__builtin_memcpy(name, "uprobe", 7);
	else if (type == 1)
		__builtin_memcpy(name, "software", 9);
	else if (type == 2)
		__builtin_memcpy(name, "tracepoint", 11);
	else if (type == 5)
		__builtin_memcpy(name, "breakpoint", 11);
	else if (type < 5)
		__builtin_memcpy(name, "cpu", 4);
}

/* `pmu`: the name of what measures; NULL where only its type is known. */
static __always_inline int runtime_integrity_perf_event(struct runtime_integrity_perf_attr *attr,
							struct task_struct *target, const char *pmu, u32 cpu,
							u64 trusted, u64 compat, const u32 can)
{
	struct runtime_integrity_settings *settings = runtime_integrity_settings_now();
	struct runtime_integrity_perf_event_open_inline known = {
		.type = attr->type,
		.kernel = !(attr->flags & RUNTIME_INTEGRITY_EXCLUDE_KERNEL),
		.attr_trusted = trusted,
		.compat = compat,
	};
	struct runtime_integrity_perf_event_open *record;
	struct krie_answer answer;
	const struct cred *own, *cred;
	u64 kprobe, uprobe;
	int error = 0;

	if (!settings)
		return 0;
	kprobe = runtime_integrity_is_pmu(attr->type, settings->kprobe_type);
	uprobe = runtime_integrity_is_pmu(attr->type, settings->uprobe_type);
	if (pmu)
		bpf_probe_read_kernel_str(known.pmu, sizeof(record->pmu), pmu);
	else
		runtime_integrity_pmu_of(attr->type, kprobe, uprobe, known.pmu);
	known.probe = kprobe | uprobe;
	target = krie_without_type(target);
	own = KRIE_READ(task_struct, krie_current(), cred);
	cred = KRIE_READ(task_struct, target, real_cred);
	known.target_tgid = KRIE_READ(task_struct, target, tgid); /* of none, as all of it, 0 */
	known.other_user =
	    krie_truth((u64)target) * (1 - krie_equal(KRIE_READ(cred, cred, uid.val), KRIE_READ(cred, own, uid.val)));
	answer = krie_decide_runtime_integrity_perf_event_open(&known, can);
	answer.digest = krie_digest_with(answer.digest, target);
	record = krie_reserve_runtime_integrity_perf_event_open(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_perf_event_open(record, &known);
	record->config = attr->config;
	record->on_cpu = cpu;
	if (known.probe) {
		record->offset = attr->config2;
		bpf_probe_read_user_str(record->probed, sizeof(record->probed), (void *)attr->config1);
	}
	if (target)
		record->target_start_time = krie_start_time(target);
	krie_submit_runtime_integrity_perf_event_open(record);
	return error;
}

/* security_perf_event_alloc(event): the kernel's own copy of the attributes, and the target, are in it. Also asked
 * where the kernel makes events for itself or for children, which are other system calls. */
static __always_inline int runtime_integrity_perf_alloc(struct perf_event *event, const u32 can)
{
	struct runtime_integrity_perf_attr attr = {};
	struct krie_syscall call = krie_syscall_now();
	struct pmu *pmu;

	if (!runtime_integrity_is_perf_open(&call) || !krie_enter())
		return 0;
	bpf_probe_read_kernel(&attr, sizeof(attr), KRIE_ADDRESS(perf_event, event, attr));
	pmu = KRIE_READ(perf_event, event, pmu);
	return runtime_integrity_perf_event(&attr, KRIE_READ(perf_event, event, hw.target), KRIE_READ(pmu, pmu, name),
					    KRIE_READ(perf_event, event, cpu), 1, call.compat, can);
}

int runtime_integrity_perf_alloc_hook(u64 *ctx)
{
	return runtime_integrity_perf_alloc((struct perf_event *)ctx[0], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_perf_alloc_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_perf_alloc((struct perf_event *)ctx->di, KRIE_CAN_KILL);
}

int runtime_integrity_perf_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct runtime_integrity_perf_attr attr = {};
	struct task_struct *target = NULL;
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	bpf_probe_read_user(&attr, sizeof(attr), (void *)call.first);
	if ((s32)call.second == 0)
		target = krie_current();
	else if ((s32)call.second > 0)
		target = krie_task_by_tid(krie_current(), call.second);
	return runtime_integrity_perf_event(&attr, target, NULL, call.third, 0, call.compat, KRIE_CAN_KILL);
}
