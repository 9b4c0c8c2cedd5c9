/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Credentials are compared where the kernel asks whether they suffice, and is told that they do not.
 */

/* security_ptrace_access_check(child, mode): about another process, be it to control it or to read of it what is not
 * for everybody. */
int runtime_integrity_cred_ptrace_hook(u64 *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_PTRACE,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 0);
}

/* security_task_kill(task, info, signal, cred), to another process. Not by credentials that the kernel has kept of
 * somebody: it does so in interrupts, in whatever thread these come. */
int runtime_integrity_cred_signal_hook(u64 *ctx)
{
	struct task_struct *task = krie_argument(ctx, 0);

	if (krie_argument(ctx, 3) || KRIE_READ(task_struct, task, tgid) == (u32)(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (!krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_SIGNAL,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 0);
}

/* security_capable(cred, user namespace, capability, options): about the thread itself, not where the kernel asks for
 * another one's. As an LSM hook it comes behind the kernel's own, and only where that one grants. */
int runtime_integrity_cred_capable_hook(u64 *ctx)
{
	if (krie_argument(ctx, 0) != KRIE_LOAD(task_struct, krie_current_btf(), cred) || !krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_CAPABILITY,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 0);
}
