/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The last resort of several topics, in one program: where a kernel offers nothing better than the entry of every system
 * call, this costs it one program and not four. Pasted behind the topics' own files.
 */

#if defined(KRIE_USE_RUNTIME_INTEGRITY_MODULE_LOAD_RAW_TRACEPOINT) ||                                                          \
	defined(KRIE_USE_RUNTIME_INTEGRITY_MODULE_UNLOAD_RAW_TRACEPOINT) ||                                                    \
	defined(KRIE_USE_RUNTIME_INTEGRITY_SOCKET_FILTER_RAW_TRACEPOINT) ||                                                    \
	defined(KRIE_USE_RUNTIME_INTEGRITY_PERF_EVENT_OPEN_RAW_TRACEPOINT)

#define RUNTIME_INTEGRITY_SYS_ENTER KRIE_PROGRAM_runtime_integrity_sys_enter
#define RUNTIME_INTEGRITY_S_IFSOCK 0140000 /* of a file's mode: S_IFMT, S_IFSOCK */
#define RUNTIME_INTEGRITY_S_IFMT 0170000

/* Numbers of x86-64, x32 and ia32 together: the cheapest question; which caller it is comes next. */
static __always_inline bool runtime_integrity_is_of_topics(u64 number)
{
	switch (number & ~(u64)KRIE_X32_BIT) {
	case 54: case 541: case 366: /* setsockopt */
	case 175: case 128: /* init_module */
	case 313: case 350: /* finit_module */
	case 176: case 129: /* delete_module */
	case 298: case 336: /* perf_event_open */
		return true;
	}
	return false;
}

static __always_inline int runtime_integrity_setsockopt_called(struct krie_syscall *call)
{
#ifdef KRIE_USE_RUNTIME_INTEGRITY_SOCKET_FILTER_RAW_TRACEPOINT
	struct file *file;
	struct inode *inode;

	if (!runtime_integrity_is_filter(call->second, call->third))
		return 0;
	file = krie_open_file((u32)call->first);
	inode = KRIE_READ(file, file, f_inode);
	if (!file || (KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_S_IFMT) != RUNTIME_INTEGRITY_S_IFSOCK)
		return 0;
	return runtime_integrity_filter(RUNTIME_INTEGRITY_SYS_ENTER, KRIE_READ(file, file, private_data), call->third,
					runtime_integrity_option_value(call), call->compat, KRIE_CAN_KILL);
#else
	return 0;
#endif
}

static __always_inline int runtime_integrity_perf_called(struct krie_syscall *call)
{
#ifdef KRIE_USE_RUNTIME_INTEGRITY_PERF_EVENT_OPEN_RAW_TRACEPOINT
	struct runtime_integrity_perf_attr attr = {};
	struct task_struct *target = NULL;

	bpf_probe_read_user(&attr, sizeof(attr), (void *)call->first);
	if ((s32)call->second == 0)
		target = krie_current();
	else if ((s32)call->second > 0)
		target = krie_task_by_tid(krie_current(), call->second);
	return runtime_integrity_perf_event(RUNTIME_INTEGRITY_SYS_ENTER, &attr, target, NULL, call->third, 0, call->compat,
					    KRIE_CAN_KILL);
#else
	return 0;
#endif
}

static __always_inline int runtime_integrity_module_called(struct krie_syscall *call)
{
#ifdef KRIE_USE_RUNTIME_INTEGRITY_MODULE_UNLOAD_RAW_TRACEPOINT
	if (runtime_integrity_is_unload(call))
		return runtime_integrity_unload(RUNTIME_INTEGRITY_SYS_ENTER, call, (void *)call->first, NULL,
						KRIE_CAN_KILL);
#endif
#ifdef KRIE_USE_RUNTIME_INTEGRITY_MODULE_LOAD_RAW_TRACEPOINT
	if (call->number == 175 - (175 - 128) * call->compat)
		return runtime_integrity_load(RUNTIME_INTEGRITY_SYS_ENTER, RUNTIME_INTEGRITY_FROM_MEMORY, NULL, NULL, 0,
					      KRIE_CAN_KILL);
	if (call->number == 313 + (350 - 313) * call->compat)
		return runtime_integrity_load(RUNTIME_INTEGRITY_SYS_ENTER, RUNTIME_INTEGRITY_FROM_FILE,
					      krie_open_file((u32)call->first), NULL, call->third, KRIE_CAN_KILL);
#endif
	return 0;
}

int runtime_integrity_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	if (!runtime_integrity_is_of_topics(ctx->args[1]) || !krie_enter(RUNTIME_INTEGRITY_SYS_ENTER))
		return 0;
	struct krie_syscall call = krie_syscall_of(ctx);

	if (call.number == 54 + (366 - 54) * call.compat || (!call.compat && call.number == 541))
		return runtime_integrity_setsockopt_called(&call);
	if (runtime_integrity_is_perf_open(&call))
		return runtime_integrity_perf_called(&call);
	return runtime_integrity_module_called(&call);
}
#endif
