/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Who changes what kernel functions do, by the kernel's own means: kprobes, uprobes, BPF trampolines, live patches, and
 * the switch of all kprobes. The same C serves fentry and kprobe; either sees the functions' arguments.
 */

/* An argument as a plain number: to the verifier a pointer out of the context has a type, and may not be a map's key.
 */
static __always_inline u64 runtime_integrity_argument(void *ctx, const u64 fentry, const u64 kprobe)
{
	u64 place = krie_self() >> 32 & RUNTIME_INTEGRITY_OF_KPROBE ? kprobe : fentry;
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), ctx + place);
	return value;
}

static __always_inline u64 runtime_integrity_first(void *ctx)
{
	return runtime_integrity_argument(ctx, 0, __builtin_offsetof(struct pt_regs, di));
}

static __always_inline u64 runtime_integrity_second(void *ctx)
{
	return runtime_integrity_argument(ctx, 8, __builtin_offsetof(struct pt_regs, si));
}

/* The records of one operation have most in common; NULL where none is to be sent. */
static __always_inline struct runtime_integrity_probe_register *runtime_integrity_probe(u8 mechanism, u8 operation)
{
	struct runtime_integrity_probe_register *record = krie_reserve_runtime_integrity_probe_register(NULL, 0);

	if (!record)
		return NULL;
	record->mechanism = mechanism;
	record->operation = operation;
	return record;
}

#ifdef KRIE_HAS_kprobe__pre_handler
struct runtime_integrity_returning {
	u64 handler; /* 0 until register_kprobe() is reached */
	u64 thread; /* that is in register_kretprobe(); 0 when register_kprobe() was reached */
};

/* Return probes, by the kprobe that each of them has within. */
BPF_TABLE("lru_hash", u64, struct runtime_integrity_returning, runtime_integrity_returning, 4096);

static __always_inline u64 runtime_integrity_return_handler(u64 kretprobe)
{
	u64 handler = 0;

#ifdef KRIE_HAS_kretprobe__handler
	handler = (u64)KRIE_READ(kretprobe, kretprobe, handler);
	if (!handler)
		handler = (u64)KRIE_READ(kretprobe, kretprobe, entry_handler);
#endif
	return handler;
}

/*
 * The handler of the return probe that this kprobe is within; 0 where it is none. register_kretprobe() may fail, before
 * it comes to register_kprobe() or after, and its memory may become that of a kprobe: what is remembered of an address
 * counts if this very thread is on its way from the one to the other. Where it failed before, memory of the kernel's
 * own probes tells by having no handler for returns.
 */
static __always_inline u64 runtime_integrity_returns(u64 kprobe, u8 operation)
{
	struct runtime_integrity_returning *known = runtime_integrity_returning.lookup(&kprobe);

	if (!known)
		return 0;
	if (operation != RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER)
		return known->handler;
	known->handler = known->thread == bpf_get_current_pid_tgid() ? runtime_integrity_return_handler(kprobe) : 0;
	known->thread = 0;
	return known->handler;
}

static __always_inline int runtime_integrity_kprobe(u64 kprobe, u8 operation)
{
	struct runtime_integrity_probe_register *record;
	u64 returns = runtime_integrity_returns(kprobe, operation); /* also of what is not told: its end may be */

	if (!krie_enter())
		return 0;
	record = runtime_integrity_probe(returns ? RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_KRETPROBE
						 : RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_KPROBE,
					 operation);
	if (!record)
		return 0;
	record->address = (u64)KRIE_READ(kprobe, kprobe, addr);
	record->offset = KRIE_READ(kprobe, kprobe, offset);
	record->handler = returns ? returns : (u64)KRIE_READ(kprobe, kprobe, pre_handler);
	if (!record->handler)
		record->handler = (u64)KRIE_READ(kprobe, kprobe, post_handler);
	bpf_probe_read_kernel_str(record->symbol, sizeof(record->symbol), KRIE_READ(kprobe, kprobe, symbol_name));
	krie_submit_runtime_integrity_probe_register(record);
	return 0;
}

#ifdef KRIE_HAS_kretprobe__handler
/* register_kretprobe(rp), which calls register_kprobe(). The struct begins with its kprobe. */
int runtime_integrity_kretprobe(u64 *ctx)
{
	struct runtime_integrity_returning begun = { .thread = bpf_get_current_pid_tgid() };
	u64 kretprobe = runtime_integrity_first(ctx);

	krie_enter(); /* counts the canary's run */
	runtime_integrity_returning.update(&kretprobe, &begun);
	return 0;
}
#endif

/* register_kprobe(p) */
int runtime_integrity_register(u64 *ctx)
{
	return runtime_integrity_kprobe(runtime_integrity_first(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER);
}

/* __unregister_kprobe_top(p), for kprobes and return probes, one or many */
int runtime_integrity_unregister(u64 *ctx)
{
	u64 kprobe = runtime_integrity_first(ctx);

	runtime_integrity_kprobe(kprobe, RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_UNREGISTER);
	runtime_integrity_returning.delete(&kprobe);
	return 0;
}

/* enable_kprobe(kp) */
int runtime_integrity_enable(u64 *ctx)
{
	return runtime_integrity_kprobe(runtime_integrity_first(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_ENABLE);
}

/* disable_kprobe(kp) */
int runtime_integrity_disable(u64 *ctx)
{
	return runtime_integrity_kprobe(runtime_integrity_first(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_DISABLE);
}

/* write_enabled_file_bool(file, text, ...) of debugfs' kprobes/enabled: y, 1, on, or n, 0, off */
int runtime_integrity_switch(u64 *ctx)
{
	struct runtime_integrity_probe_register *record;
	char text[2] = {};
	u8 operation;

	if (!krie_enter())
		return 0;
	bpf_probe_read_user(text, sizeof(text), (void *)runtime_integrity_second(ctx));
	operation = RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_DISARM;
	if (text[0] == 'y' || text[0] == 'Y' || text[0] == '1' || text[1] == 'n' || text[1] == 'N')
		operation = RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_ARM;
	record = runtime_integrity_probe(RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_ALL_KPROBES, operation);
	if (record)
		krie_submit_runtime_integrity_probe_register(record);
	return 0;
}
#endif

static __always_inline int runtime_integrity_uprobe(struct inode *inode, u64 offset, u8 operation)
{
	struct runtime_integrity_probe_register *record;
	struct super_block *super;

	if (!krie_enter())
		return 0;
	record = runtime_integrity_probe(RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_UPROBE, operation);
	if (!record)
		return 0;
	super = KRIE_READ(inode, inode, i_sb);
	record->file_ino = KRIE_READ(inode, inode, i_ino);
	record->file_dev = KRIE_READ(super_block, super, s_dev);
	record->offset = offset;
#if defined(KRIE_HAS_dentry__d_u) || defined(KRIE_HAS_dentry__d_alias)
	void *alias = KRIE_READ(inode, inode, i_dentry.first); /* any of the file's names */

	if (alias) {
#ifdef KRIE_HAS_dentry__d_u
		struct dentry *dentry = alias - __builtin_offsetof(struct dentry, d_u.d_alias);
#else /* a union without a name (7.3 has it) */
		struct dentry *dentry = alias - __builtin_offsetof(struct dentry, d_alias);
#endif

		bpf_probe_read_kernel_str(record->symbol, sizeof(record->symbol),
					  KRIE_READ(dentry, dentry, d_name.name));
	}
#endif
	krie_submit_runtime_integrity_probe_register(record);
	return 0;
}

/* uprobe_register(inode, offset, ...) */
int runtime_integrity_uprobe_new(u64 *ctx)
{
	return runtime_integrity_uprobe((struct inode *)runtime_integrity_first(ctx), runtime_integrity_second(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER);
}

/* uprobe_register_refctr(inode, offset, ...), until 3c83a9ad0295 */
int runtime_integrity_uprobe_ref(u64 *ctx)
{
	return runtime_integrity_uprobe((struct inode *)runtime_integrity_first(ctx), runtime_integrity_second(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER);
}

/* uprobe_unregister(inode, offset, ...), until 04b01625da13 */
int runtime_integrity_uprobe_end(u64 *ctx)
{
	return runtime_integrity_uprobe((struct inode *)runtime_integrity_first(ctx), runtime_integrity_second(ctx),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_UNREGISTER);
}

#ifdef KRIE_HAS_uprobe__inode
/* uprobe_unregister_nosync(uprobe, ...) */
int runtime_integrity_uprobe_gone(u64 *ctx)
{
	struct uprobe *uprobe = (struct uprobe *)runtime_integrity_first(ctx);

	return runtime_integrity_uprobe(KRIE_READ(uprobe, uprobe, inode), KRIE_READ(uprobe, uprobe, offset),
					RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_UNREGISTER);
}
#endif

/* bpf_trampoline_link_prog() and ..._unlink_prog(): a program of type tracing or LSM comes to a function, or leaves it.
 */
static __always_inline int runtime_integrity_trampoline(u64 link, struct bpf_trampoline *trampoline, u8 operation)
{
	struct runtime_integrity_probe_register *record;
	struct bpf_prog_aux *aux;
	struct bpf_prog *prog;

	if (!krie_enter())
		return 0;
	record = runtime_integrity_probe(RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_TRAMPOLINE, operation);
	if (!record)
		return 0;
#ifdef KRIE_HAS_bpf_tramp_link__link
	prog = KRIE_READ(bpf_tramp_link, link, link.prog);
#else
	prog = (struct bpf_prog *)link;
#endif
	aux = KRIE_READ(bpf_prog, prog, aux);
	record->prog_id = KRIE_READ(bpf_prog_aux, aux, id);
	bpf_probe_read_kernel(record->prog_name, sizeof(record->prog_name), KRIE_ADDRESS(bpf_prog_aux, aux, name));
	record->address = (u64)KRIE_READ(bpf_trampoline, trampoline, func.addr);
	bpf_probe_read_kernel_str(record->symbol, sizeof(record->symbol),
				  KRIE_READ(bpf_prog_aux, aux, attach_func_name));
	krie_submit_runtime_integrity_probe_register(record);
	return 0;
}

int runtime_integrity_trampoline_link(u64 *ctx)
{
	return runtime_integrity_trampoline(runtime_integrity_first(ctx),
					    (struct bpf_trampoline *)runtime_integrity_second(ctx),
					    RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER);
}

int runtime_integrity_trampoline_end(u64 *ctx)
{
	return runtime_integrity_trampoline(runtime_integrity_first(ctx),
					    (struct bpf_trampoline *)runtime_integrity_second(ctx),
					    RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_UNREGISTER);
}

#ifdef KRIE_HAS_klp_patch__mod
/* klp_enable_patch(patch): the first function of the first object stands for all. */
int runtime_integrity_livepatch(u64 *ctx)
{
	struct runtime_integrity_probe_register *record;
	u64 patch = runtime_integrity_first(ctx);
	struct klp_object *object;
	struct klp_func *function;
	void *owner;

	if (!krie_enter())
		return 0;
	record = runtime_integrity_probe(RUNTIME_INTEGRITY_PROBE_REGISTER_MECHANISM_LIVEPATCH,
					 RUNTIME_INTEGRITY_PROBE_REGISTER_OPERATION_REGISTER);
	if (!record)
		return 0;
	object = KRIE_READ(klp_patch, patch, objs);
	function = KRIE_READ(klp_object, object, funcs);
	owner = KRIE_READ(klp_patch, patch, mod);
	record->handler = (u64)KRIE_READ(klp_func, function, new_func);
	bpf_probe_read_kernel_str(record->symbol, sizeof(record->symbol), KRIE_READ(klp_func, function, old_name));
	bpf_probe_read_kernel_str(record->module, sizeof(record->module), KRIE_ADDRESS(module, owner, name));
	krie_submit_runtime_integrity_probe_register(record);
	return 0;
}
#endif
