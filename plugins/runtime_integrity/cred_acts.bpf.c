/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Credentials are compared where the kernel asks whether they suffice, and is told that they do not.
 */

/* security_capable(cred, user namespace, capability, options): about the thread itself, not where the kernel asks for another
 * one's. As an LSM hook it comes behind the kernel's own, and only where that one grants. */
int runtime_integrity_cred_capable_hook(u64 *ctx)
{
	if (krie_argument(ctx, 0) != KRIE_LOAD(task_struct, krie_current_btf(), cred) || !krie_enter())
		return 0;
	return runtime_integrity_compare(RUNTIME_INTEGRITY_CRED_TAMPER_OPERATION_CAPABILITY,
					 KRIE_CAN_REFUSE | KRIE_CAN_KILL, 0);
}
