/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Entries of handlers that rootkits wrap: whoever hooks one and calls the original is seen at its first use.
 */

BPF_ARRAY(syscall_table_handlers, struct syscall_table_handler, SYSCALL_TABLE_HANDLERS);

static __always_inline u64 syscall_table_may_call(struct syscall_table_kernel *kernel, u64 address)
{
	u64 may = krie_equal(kernel->dispatchers[0], 0); /* nobody knows who may */

#pragma unroll
	for (int range = 0; range < 2 * SYSCALL_TABLE_DISPATCHERS; range += 2)
		may |= syscall_table_within(address, kernel->dispatchers[range], kernel->dispatchers[range + 1]);
#pragma unroll
	for (int tracer = 0; tracer < 3; tracer++)
		may |= krie_truth(kernel->trampolines[tracer]) * krie_equal(address, kernel->trampolines[tracer]);
	return may;
}

int syscall_table_entered(struct pt_regs *ctx)
{
	struct syscall_table_wrapped_inline known = {};
	struct syscall_table_handler *handler;
	struct syscall_table_kernel *kernel;
	struct syscall_table_wrapped *record;
	struct krie_answer answer;
	u32 zero = 0, which = krie_self() >> 32;
	u64 address = 0, told = 0;

	if (!krie_enter())
		return 0;
	handler = syscall_table_handlers.lookup(&which);
	kernel = syscall_table_kernel.lookup(&zero);
	if (!handler || !kernel)
		return 0;
	handler->checked += 1;
	if (bpf_probe_read_kernel(&address, sizeof(address), (void *)ctx->sp) ||
	    syscall_table_may_call(kernel, address))
		return 0;
#pragma unroll
	for (int caller = 0; caller < SYSCALL_TABLE_CALLERS; caller++)
		told |= krie_equal(address, handler->told[caller]);
	if (told)
		return 0;
	known.number = (s64)handler->number;
	known.abi = handler->abi;
	known.target = syscall_table_target(kernel, address);
	answer = krie_decide_syscall_table_wrapped(&known, KRIE_CAN_KILL);
	record = krie_reserve_syscall_table_wrapped(&answer, KRIE_CAN_KILL);
	if (!record)
		return 0;
	krie_stamp(&record->header, &answer);
	krie_put_syscall_table_wrapped(record, &known);
	record->ip = ctx->ip;
	record->return_address = address;
	krie_submit_syscall_table_wrapped(record);
	handler->told[handler->next & (SYSCALL_TABLE_CALLERS - 1)] = address;
	handler->next += 1;
	return 0;
}
