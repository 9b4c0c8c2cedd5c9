/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Kernel modules, before they are read from a file or from memory, and once they are linked and about to run.
 */

#define RUNTIME_INTEGRITY_READING_MODULE 2 /* enum kernel_read_file_id, include/linux/kernel_read_file.h */
#define RUNTIME_INTEGRITY_LOADING_MODULE 2 /* enum kernel_load_data_id, include/linux/security.h */

/* 1 for finit_module(2) of x86-64 and x32, and of ia32. */
static __always_inline u64 runtime_integrity_is_finit(struct krie_syscall *call)
{
	return krie_equal(call->number, 313 + (350 - 313) * call->compat);
}

/* Its flags, 0 where the call is another one. */
static __always_inline u64 runtime_integrity_load_flags(void)
{
	struct krie_syscall call = krie_syscall_now();

	return runtime_integrity_is_finit(&call) * call.third;
}

/* The module's parameters, as the caller has them: of its own copy the kernel has made single words when it is linked.
 */
static __always_inline void runtime_integrity_load_args(char *args, const u32 size)
{
	struct krie_syscall call = krie_syscall_now();

	bpf_probe_read_user_str(args, size,
				(void *)(call.third + (call.second - call.third) * runtime_integrity_is_finit(&call)));
}

/* Whether the kernel started this process itself, by its usermode helper: request_module() runs modprobe so. */
static __always_inline bool runtime_integrity_is_helper(void)
{
	struct task_struct *parent = KRIE_READ(task_struct, krie_current(), real_parent);

	return KRIE_READ(task_struct, parent, flags) & KRIE_PF_KTHREAD;
}

/* `file` and `linked` are NULL where they are not known. `can`: 0 where it is too late for a decision of the kernel. */
static __always_inline int runtime_integrity_load(u8 step, struct file *file, void *linked, u64 flags, const u32 can)
{
	struct runtime_integrity_module_load_inline known = {
		.step = step,
		.flags = flags,
		.helper = runtime_integrity_is_helper(),
	};
	struct inode *inode;
	struct runtime_integrity_module_load *record;
	struct krie_answer answer = {};
	int error = 0;

	if (step == RUNTIME_INTEGRITY_MODULE_LOAD_STEP_FILE) /* else there is none, and nothing of it is compiled */
		file = krie_without_type(file);
	inode = KRIE_READ(file, file, f_inode); /* of no file, as all of it, 0 */
	known.file_uid = KRIE_READ(inode, inode, i_uid.val);
	known.others_write = KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_OTHERS_WRITE;
	known.file_deleted = krie_truth((u64)file) * krie_equal(KRIE_READ(inode, inode, i_nlink), 0);
#ifdef KRIE_HAS_module__taints
	if (linked)
		known.taints = KRIE_READ(module, linked, taints);
#endif
	if (can)
		answer = krie_decide_runtime_integrity_module_load(&known, can);
	record = krie_reserve_runtime_integrity_module_load(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_module_load(record, &known);
	if (file) {
		krie_identity(file, &record->file_dev, &record->file_ino, &record->file_generation);
		record->path_truncated = krie_path(file, record->path, sizeof(record->path), &record->path_length);
	}
#ifdef KRIE_HAS_module__taints
	if (linked) {
		bpf_probe_read_kernel_str(record->name, sizeof(record->name), KRIE_ADDRESS(module, linked, name));
#if defined(KRIE_HAS_module__mem) /* since ac3b43283923; the first of these memories is MOD_TEXT */
		record->code_address = (u64)KRIE_READ(module, linked, mem[0].base);
		record->code_size = KRIE_READ(module, linked, mem[0].size);
#elif defined(KRIE_HAS_module__core_layout)
		record->code_address = (u64)KRIE_READ(module, linked, core_layout.base);
		record->code_size = KRIE_READ(module, linked, core_layout.text_size);
#endif
	}
#endif
	runtime_integrity_load_args(record->args, sizeof(record->args));
	krie_submit_runtime_integrity_module_load(record);
	return error;
}

static __always_inline int runtime_integrity_read_file(struct file *file, u32 what, const u32 can)
{
	if (what != RUNTIME_INTEGRITY_READING_MODULE || !krie_enter())
		return 0;
	return runtime_integrity_load(RUNTIME_INTEGRITY_MODULE_LOAD_STEP_FILE, file, NULL,
				      runtime_integrity_load_flags(), can);
}

static __always_inline int runtime_integrity_load_data(u32 what, const u32 can)
{
	if (what != RUNTIME_INTEGRITY_LOADING_MODULE || !krie_enter())
		return 0;
	return runtime_integrity_load(RUNTIME_INTEGRITY_MODULE_LOAD_STEP_MEMORY, NULL, NULL, 0, can);
}

/* security_kernel_read_file(file, id, contents) */
int runtime_integrity_read_file_hook(u64 *ctx)
{
	return runtime_integrity_read_file((struct file *)ctx[0], ctx[1], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

/* security_kernel_load_data(id, contents) */
int runtime_integrity_load_data_hook(u64 *ctx)
{
	return runtime_integrity_load_data(ctx[0], KRIE_CAN_REFUSE | KRIE_CAN_KILL);
}

int runtime_integrity_read_file_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_read_file((struct file *)ctx->di, ctx->si, KRIE_CAN_KILL);
}

int runtime_integrity_load_data_kprobe(struct pt_regs *ctx)
{
	return runtime_integrity_load_data(ctx->di, KRIE_CAN_KILL);
}

int runtime_integrity_init_module_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_load(RUNTIME_INTEGRITY_MODULE_LOAD_STEP_MEMORY, NULL, NULL, 0, KRIE_CAN_KILL);
}

int runtime_integrity_finit_module_syscall(struct bpf_raw_tracepoint_args *ctx)
{
	struct krie_syscall call;

	if (!krie_enter())
		return 0;
	call = krie_syscall_of(ctx);
	return runtime_integrity_load(RUNTIME_INTEGRITY_MODULE_LOAD_STEP_FILE, krie_open_file((u32)call.first), NULL,
				      call.third, KRIE_CAN_KILL);
}

/* module_load(mod): behind everything that can fail but the module's own init function, which runs next. */
int runtime_integrity_linked(struct bpf_raw_tracepoint_args *ctx)
{
	if (!krie_enter())
		return 0;
	return runtime_integrity_load(RUNTIME_INTEGRITY_MODULE_LOAD_STEP_LINKED, NULL, (void *)ctx->args[0],
				      runtime_integrity_load_flags(), 0);
}
