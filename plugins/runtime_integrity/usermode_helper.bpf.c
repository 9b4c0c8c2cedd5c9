/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Programs that the kernel starts by itself, at their exec: behind all that chooses them, before anything of them runs.
 */

#define RUNTIME_INTEGRITY_VARIABLES 3 /* that the kernel gives a helper: HOME, TERM and PATH */
#define RUNTIME_INTEGRITY_QUIET 0x712dULL /* "-q", with the 0 behind it */
#define RUNTIME_INTEGRITY_END_OF_OPTIONS 0x2d2dULL /* "--" */

/* What the program is given. */
struct runtime_integrity_words {
	char first[16];
	char second[16];
	char third[64];
	u8 asks_for_module;
	u8 other_variables;
};

/* By thread. Never deleted: each that the kernel starts a program in writes it again before it is read. */
BPF_F_TABLE("lru_hash", u64, struct runtime_integrity_words, runtime_integrity_given, 1024, KRIE_FROZEN);

static __always_inline u64 runtime_integrity_pointer(u64 *array, const u32 index)
{
	long (*read_any)(void *to, __u32 size, const void *from) = (void *)4;
	u64 pointer = 0;

	read_any(&pointer, sizeof(pointer), array + index);
	return pointer;
}

/* 1 for a variable by a name that the kernel gives all of its helpers. */
static __always_inline u64 runtime_integrity_is_usual(u64 variable)
{
	u64 start = runtime_integrity_pointer((u64 *)variable, 0) & 0xffffffffffULL;

	return krie_equal(start, 0x3d454d4f48ULL) | krie_equal(start, 0x3d4d524554ULL) |
	       krie_equal(start, 0x3d48544150ULL);
}

/* Both arrays, and what they lead to, are the kernel's before the exec, and the program's own behind it. */
static __always_inline void runtime_integrity_read_words(struct runtime_integrity_words *words, u64 *arguments,
							 u64 *variables)
{
	long (*read_any_text)(void *to, __u32 size, const void *from) = (void *)45;
	u64 going_on = krie_truth((u64)variables);
	u64 other = 0;

	read_any_text(words->first, sizeof(words->first), (void *)runtime_integrity_pointer(arguments, 1));
	/* Behind the last argument lies no other one. */
	if (words->first[0])
		read_any_text(words->second, sizeof(words->second), (void *)runtime_integrity_pointer(arguments, 2));
	if (words->second[0])
		read_any_text(words->third, sizeof(words->third), (void *)runtime_integrity_pointer(arguments, 3));
#pragma unroll
	for (u32 index = 0; index < RUNTIME_INTEGRITY_VARIABLES; index++) {
		u64 variable = runtime_integrity_pointer(variables, index);

		going_on &= krie_truth(variable);
		other |= going_on & (1 - runtime_integrity_is_usual(variable));
	}
	going_on &= krie_truth(runtime_integrity_pointer(variables, RUNTIME_INTEGRITY_VARIABLES));
	words->other_variables = other | going_on;
	words->asks_for_module =
	    krie_equal(runtime_integrity_pointer((u64 *)words->first, 0) & 0xffffff, RUNTIME_INTEGRITY_QUIET) &
	    krie_equal(runtime_integrity_pointer((u64 *)words->second, 0) & 0xffffff, RUNTIME_INTEGRITY_END_OF_OPTIONS);
}

/* In the map at once: the stack has no room for them beside what is decided by. */
static __always_inline void runtime_integrity_note_words(u64 *arguments, u64 *variables)
{
	struct runtime_integrity_words words = {};
	u64 thread = bpf_get_current_pid_tgid();

	runtime_integrity_read_words(&words, arguments, variables);
	runtime_integrity_given.update(&thread, &words);
}

/* kernel_execve(path, arguments, variables): in this very thread, right before the exec copies them. */
int runtime_integrity_helper_given(u64 *ctx)
{
	krie_enter();
	runtime_integrity_note_words(krie_argument(ctx, 1), krie_argument(ctx, 2));
	return 0;
}

static __always_inline int runtime_integrity_helper(struct linux_binprm *program, const u32 can)
{
	struct runtime_integrity_usermode_helper_inline known = {};
	struct runtime_integrity_usermode_helper *record;
	struct file *file = KRIE_READ(linux_binprm, program, file);
	struct inode *inode = KRIE_READ(file, file, f_inode);
	void *name = (void *)KRIE_READ(linux_binprm, program, filename);
	u64 thread = bpf_get_current_pid_tgid();
	struct runtime_integrity_words *words = runtime_integrity_given.lookup(&thread);
	struct krie_answer answer;
	int error = 0;
	s64 length;

	known.file_uid = KRIE_READ(inode, inode, i_uid.val);
	known.others_write = KRIE_READ(inode, inode, i_mode) & RUNTIME_INTEGRITY_OTHERS_WRITE;
	known.file_deleted = krie_equal(KRIE_READ(inode, inode, i_nlink), 0);
	known.interpreter = 1 - krie_equal((u64)name, (u64)KRIE_READ(linux_binprm, program, interp));
	/* Of a program's interpreter it matters only who controls it: the kernel has chosen the program. */
	if (can & KRIE_CAN_REFUSE && known.interpreter && !(known.file_uid | known.others_write | known.file_deleted))
		return 0;
	length = bpf_probe_read_kernel_str(known.path, sizeof(known.path), name);
	known.path_truncated = krie_equal(length, sizeof(known.path));
	known.other_variables = 1;
	if (words) {
		known.asks_for_module = words->asks_for_module;
		known.other_variables = words->other_variables;
	}
	answer = krie_decide_runtime_integrity_usermode_helper(&known, can);
	record = krie_reserve_runtime_integrity_usermode_helper(&answer, can);
	if (!record)
		return can & KRIE_CAN_REFUSE ? krie_error(&answer) : 0;
	if (can & KRIE_CAN_REFUSE)
		error = krie_error(&answer);
	krie_stamp(&record->header, &answer);
	krie_put_runtime_integrity_usermode_helper(record, &known);
	if (words) {
		bpf_probe_read_kernel(record->argument_1, sizeof(record->argument_1), words->first);
		bpf_probe_read_kernel(record->argument_2, sizeof(record->argument_2), words->second);
		bpf_probe_read_kernel(record->argument_3, sizeof(record->argument_3), words->third);
	}
	krie_submit_runtime_integrity_usermode_helper(record);
	return error;
}

/* security_bprm_check(bprm). Whoever executes a file has memory of its own; not so the thread that the kernel has made
 * for this (since 343f4c49f243 it is not a kernel thread by its flags). It is called for each interpreter, too: of a
 * script, or by binfmt_misc of any file. */
int runtime_integrity_helper_hook(u64 *ctx)
{
	if (krie_own_child() || krie_has_memory() || !krie_enter())
		return 0;
	return runtime_integrity_helper((struct linux_binprm *)ctx[0], KRIE_CAN_REFUSE | KRIE_CAN_REFUSE_KERNEL);
}

/* sched_process_exec(task, old_pid, bprm): where no hook can be had. It runs the program already, by its flags and
 * memory, on whose stack lie the number of its arguments, they, 0, and its variables. */
int runtime_integrity_helper_executed(struct bpf_raw_tracepoint_args *ctx)
{
	struct mm_struct *memory;
	u64 *stack;

	if (krie_own_child() || !runtime_integrity_is_helper() || !krie_enter())
		return 0;
	memory = KRIE_READ(task_struct, krie_current(), mm);
	stack = (u64 *)KRIE_READ(mm_struct, memory, start_stack);
	runtime_integrity_note_words(stack + 1, stack + 2 + (u32)runtime_integrity_pointer(stack, 0));
	return runtime_integrity_helper((struct linux_binprm *)ctx->args[2], KRIE_CAN_KILL);
}
