// SPDX-License-Identifier: GPL-2.0
/* System calls that are led to this module, as rootkits do it. */
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/processor-flags.h>

#include "krie_test.h"

typedef long (*handler_t)(const struct pt_regs *regs);
static handler_t original;

/* Not static: tests look for where a system call is led to. */
long krie_test_wrapper(const struct pt_regs *regs);
long krie_test_tail(const struct pt_regs *regs);

noinline long krie_test_wrapper(const struct pt_regs *regs)
{
	long result = original(regs);

	barrier(); /* no jump instead of the call */
	return result;
}

noinline long krie_test_tail(const struct pt_regs *regs)
{
	return original(regs);
}

struct divert_effect {
	struct effect effect;
	struct diversion how;
	u8 before[8];
	size_t count;
};

/* As rootkits do it since write_cr0() keeps the bit (873d50d58f67). */
static void set_cr0(unsigned long value)
{
	asm volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

static int write_by_force(unsigned long address, const u8 *bytes, size_t count)
{
	unsigned long cr0, flags;

	local_irq_save(flags);
	cr0 = read_cr0();
	set_cr0(cr0 & ~X86_CR0_WP);
	memcpy((void *)address, bytes, count);
	set_cr0(cr0);
	local_irq_restore(flags);
	return 0;
}

static int write_by(const struct diversion *how, const u8 *bytes, size_t count)
{
	void *(*text_poke)(void *address, const void *bytes, size_t count) = (void *)how->text_poke;

	if (!strcmp(how->how, "force"))
		return write_by_force(how->address, bytes, count);
	if (!strcmp(how->how, "alias"))
		return write_by_alias(how->address, bytes, count);
	if (strcmp(how->how, "poke") || !text_poke)
		return -EINVAL;
	text_poke((void *)how->address, bytes, count); /* its callers hold text_mutex, against each other */
	return 0;
}

static void divert_back(struct effect *effect)
{
	struct divert_effect *made = container_of(effect, struct divert_effect, effect);

	WARN_ON(write_by(&made->how, made->before, made->count));
}

/* What to write; the number of bytes, or a negative error. */
static int diverting(const struct diversion *how, const u8 *before, u8 *bytes)
{
	unsigned long wrapper = (unsigned long)krie_test_wrapper;
	bool conditional = before[0] == 0x0f;
	s32 relative;

	memcpy(bytes, before, 8);
	if (!strcmp(how->what, "slot"))
		wrapper = how->original;
	if (!strcmp(how->what, "table") || !strcmp(how->what, "slot")) {
		memcpy(bytes, &wrapper, sizeof(wrapper));
		return sizeof(wrapper);
	}
	if (!strcmp(how->what, "inline"))
		bytes[0] = 0xe9;
	else if (!strcmp(how->what, "tail"))
		wrapper = (unsigned long)krie_test_tail;
	else if (strcmp(how->what, "jump"))
		return -EINVAL;
	conditional &= bytes[0] == 0x0f;
	if (!conditional && bytes[0] != 0xe8 && bytes[0] != 0xe9)
		return -EINVAL;
	relative = wrapper - (how->address + 5 + conditional);
	memcpy(bytes + 1 + conditional, &relative, sizeof(relative));
	return 5 + conditional;
}

struct effect *divert(const struct diversion *how)
{
	struct divert_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	int error = -EFAULT;
	u8 bytes[8];

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = divert_back;
	made->how = *how;
	if (!copy_from_kernel_nofault(made->before, (void *)how->address, sizeof(made->before)))
		error = diverting(how, made->before, bytes);
	if (error > 0) {
		made->count = error;
		original = (handler_t)how->original;
		error = write_by(how, bytes, made->count);
	}
	if (error < 0) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}

/* A detour that goes on where the kernel would have begun. It lies where every page table has it only without KPTI. */
static unsigned long entry __used;
asm(".text\n"
    "krie_test_entry:\n\t" ANNOTATE_NOENDBR "\n\t" ANNOTATE_RETPOLINE_SAFE "\n\t"
    "jmp *entry(%rip)\n");
void krie_test_entry(void);

struct entry_effect {
	struct effect effect;
	int cpu;
};

static unsigned long read_entry(void)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(MSR_LSTAR));
	return (u64)high << 32 | low;
}

static void write_entry(void *value)
{
	asm volatile("wrmsr" : : "c"(MSR_LSTAR), "a"((u32)(u64)value), "d"((u32)((u64)value >> 32)) : "memory");
}

static void leave_entry(struct effect *effect)
{
	smp_call_function_single(container_of(effect, struct entry_effect, effect)->cpu, write_entry, (void *)entry, 1);
}

struct effect *divert_entry(void)
{
	struct entry_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = leave_entry;
	made->cpu = get_cpu();
	entry = read_entry();
	write_entry(krie_test_entry);
	put_cpu();
	return &made->effect;
}
