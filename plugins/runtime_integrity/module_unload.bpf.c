/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Kernel modules that go: before the kernel looks for the module, and when its memory is about to be freed.
 */

#define RUNTIME_INTEGRITY_CAP_SYS_MODULE 16 /* include/uapi/linux/capability.h */
#define RUNTIME_INTEGRITY_O_TRUNC 01000 /* of delete_module(2): although it is in use */

/* delete_module(2) of x86-64 and x32, and of ia32. */
static __always_inline bool runtime_integrity_is_unload(struct krie_syscall *call)
{
	return call->number == 176 - (176 - 129) * call->compat;
}

/* `asked_for`: the name in user memory, `freed` the module; one of them is NULL. `can`: 0 where it is too late. */
static __always_inline int runtime_integrity_unload(struct krie_syscall *call, void *asked_for, void *freed,
						    const u32 can)
{
	struct runtime_integrity_module_unload_inline known = {
		.step = freed ? RUNTIME_INTEGRITY_MODULE_UNLOAD_STEP_FREED : RUNTIME_INTEGRITY_MODULE_UNLOAD_STEP_ASKED,
		.compat = call->compat,
	};
	struct runtime_integrity_module_unload *record;
	struct krie_answer answer = {};
	int error = 0;

	if (asked_for) {
		bpf_probe_read_user_str(known.name, sizeof(record->name), asked_for);
		known.forced = call->second & RUNTIME_INTEGRITY_O_TRUNC;
	}
#ifdef KRIE_HAS_module__taints
	if (freed) {
		bpf_probe_read_kernel_str(known.name, sizeof(record->name), KRIE_ADDRESS(module, freed, name));
		known.failed_load = !runtime_integrity_is_unload(call);
	}
#endif
	if (can)
		answer = krie_decide_runtime_integrity_module_unload(&known, can);
	record = krie_reserve_runtime_integrity_module_unload(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_module_unload(record, &known);
	krie_submit_runtime_integrity_module_unload(record);
	return error;
}

/* security_capable(cred, ns, cap, opts): asked often, so everything but this one capability goes first. */
int runtime_integrity_capable(u64 *ctx)
{
	if ((u32)ctx[2] != RUNTIME_INTEGRITY_CAP_SYS_MODULE)
		return 0;
	struct krie_syscall call = krie_syscall_now();

	if (!runtime_integrity_is_unload(&call) || !krie_enter())
		return 0;
	return runtime_integrity_unload(&call, (void *)call.first, NULL, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* __x64_sys_delete_module(regs of the caller) */
int runtime_integrity_unload_override(struct pt_regs *ctx)
{
	struct krie_syscall call = krie_syscall_in((void *)ctx->di, 176);
	int error;

	if (!krie_enter())
		return 0;
	error = runtime_integrity_unload(&call, (void *)call.first, NULL, KRIE_CAN_REFUSE | KRIE_CAN_KILL);
	if (error)
		bpf_override_return(ctx, error);
	return 0;
}

/* __x64_sys_delete_module(regs of the caller) */
int runtime_integrity_unload_kprobe(struct pt_regs *ctx)
{
	struct krie_syscall call = krie_syscall_in((void *)ctx->di, 176);

	if (!krie_enter())
		return 0;
	return runtime_integrity_unload(&call, (void *)call.first, NULL, KRIE_CAN_KILL);
}

int runtime_integrity_unload_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	return runtime_integrity_unload(&call, (void *)call.first, NULL, KRIE_CAN_KILL);
}

/* module_free(mod) */
int runtime_integrity_freed(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_enter())
		return 0;
	struct krie_syscall call = krie_syscall_now();

	return runtime_integrity_unload(&call, NULL, (void *)ctx->args[0], 0);
}
