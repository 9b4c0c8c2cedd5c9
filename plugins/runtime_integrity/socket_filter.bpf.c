/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Filters on sockets: BPF programs, classic or not, that see what a socket receives.
 */

#define RUNTIME_INTEGRITY_SOL_SOCKET 1 /* include/linux/socket.h */
#define RUNTIME_INTEGRITY_SO_ATTACH_FILTER 26 /* include/uapi/asm-generic/socket.h */
#define RUNTIME_INTEGRITY_SO_DETACH_FILTER 27
#define RUNTIME_INTEGRITY_SO_LOCK_FILTER 44
#define RUNTIME_INTEGRITY_SO_ATTACH_BPF 50
#define RUNTIME_INTEGRITY_SO_ATTACH_REUSEPORT_CBPF 51
#define RUNTIME_INTEGRITY_SO_ATTACH_REUSEPORT_EBPF 52
#define RUNTIME_INTEGRITY_SO_DETACH_REUSEPORT_BPF 68

#define RUNTIME_INTEGRITY_S_IFSOCK 0140000 /* of a file's mode: S_IFMT, S_IFSOCK */
#define RUNTIME_INTEGRITY_S_IFMT 0170000

/* Other levels give the same numbers other meanings: 26 is IPV6_V6ONLY, which every server sets. */
static __always_inline bool runtime_integrity_is_filter(u32 level, u32 option)
{
	return level == RUNTIME_INTEGRITY_SOL_SOCKET &&
	       (option == RUNTIME_INTEGRITY_SO_ATTACH_FILTER || option == RUNTIME_INTEGRITY_SO_DETACH_FILTER ||
		option == RUNTIME_INTEGRITY_SO_LOCK_FILTER ||
		(option >= RUNTIME_INTEGRITY_SO_ATTACH_BPF && option <= RUNTIME_INTEGRITY_SO_ATTACH_REUSEPORT_EBPF) ||
		option == RUNTIME_INTEGRITY_SO_DETACH_REUSEPORT_BPF);
}

/* `value`: the option's value in user memory, 0 where it is not known. */
static __always_inline int runtime_integrity_filter(struct socket *socket, u32 option, u64 value, u64 compat,
						    const u32 can)
{
	struct sock *sock = KRIE_READ(socket, socket, sk);
	struct runtime_integrity_socket_filter_inline known = {
		.operation = option,
		.family = KRIE_READ(sock, sock, __sk_common.skc_family),
		.type = KRIE_READ(sock, sock, sk_type),
		.protocol = KRIE_READ(sock, sock, sk_protocol),
		.compat = compat,
	};
	struct runtime_integrity_socket_filter *record;
	struct krie_answer answer;
	u16 length = 0; /* struct sock_fprog begins with it */
	int error = 0;

	answer = krie_decide_runtime_integrity_socket_filter(&known, can);
	record = krie_reserve_runtime_integrity_socket_filter(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_socket_filter(record, &known);
	if (value &&
	    (option == RUNTIME_INTEGRITY_SO_ATTACH_FILTER || option == RUNTIME_INTEGRITY_SO_ATTACH_REUSEPORT_CBPF))
		bpf_probe_read_user(&length, sizeof(length), (void *)value);
	record->insn_count = length;
	krie_submit_runtime_integrity_socket_filter(record);
	return error;
}

/* The value's address, if the call surely is setsockopt(2) of x86-64, x32 or ia32: socketcall(2) and io_uring have it
 * elsewhere. */
static __always_inline u64 runtime_integrity_option_value(struct krie_syscall *call)
{
	return call->number == 54 + (366 - 54) * call->compat || (!call->compat && call->number == 541) ? call->fourth
													: 0;
}

/* security_socket_setsockopt(sock, level, optname) */
static __always_inline int runtime_integrity_setsockopt(struct socket *socket, u32 option, const u32 can)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_surely_now();
	return runtime_integrity_filter(socket, option, runtime_integrity_option_value(&call),
					krie_compat(krie_current()), can);
}

int runtime_integrity_setsockopt_hook(u64 *ctx)
{
	if (!runtime_integrity_is_filter(ctx[1], ctx[2]))
		return 0;
	return runtime_integrity_setsockopt((struct socket *)ctx[0], ctx[2], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_setsockopt_kprobe(struct pt_regs *ctx)
{
	if (!runtime_integrity_is_filter(ctx->si, ctx->dx))
		return 0;
	return runtime_integrity_setsockopt((struct socket *)ctx->di, ctx->dx, KRIE_CAN_KILL);
}

int runtime_integrity_setsockopt_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;
	struct inode *inode;
	struct file *file;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	if (!runtime_integrity_is_filter(call.second, call.third))
		return 0;
	file = krie_open_file((u32)call.first);
	inode = KRIE_READ(file, file, f_inode);
	if (!file || (KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_S_IFMT) != RUNTIME_INTEGRITY_S_IFSOCK)
		return 0;
	return runtime_integrity_filter(KRIE_READ(file, file, private_data), call.third, call.fourth, call.compat,
					KRIE_CAN_KILL);
}
