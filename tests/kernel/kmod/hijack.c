// SPDX-License-Identifier: GPL-2.0
/* Root's credentials taken as a hijacked kernel takes them: commit_creds() is entered as no code of the kernel enters
 * it. */
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/objtool.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <asm/cpufeature.h>
#include <asm/nospec-branch.h>

#include "krie_test.h"

/* For one attacker at a time. */
static u8 foreign_stack[16384] __aligned(16);

/* With another stack, and a proper call. */
static noinline void call_on(unsigned long entry, const struct cred *cred, unsigned long stack)
{
	asm volatile("movq %%rsp, %%rbx\n\t"
		     "movq %[stack], %%rsp\n\t" ANNOTATE_RETPOLINE_SAFE "\n\t"
		     "call *%[entry]\n\t"
		     "movq %%rbx, %%rsp"
		     : "+D"(cred)
		     : [stack] "r"(stack), [entry] "r"(entry)
		     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}
STACK_FRAME_NON_STANDARD(call_on);

/* By a jump, as the return at the end of another function is one: what it returns to is behind no call. */
static noinline void jump_to(unsigned long entry, const struct cred *cred)
{
	asm volatile("leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t" ANNOTATE_RETPOLINE_SAFE "\n\t"
		     "jmp *%[entry]\n\t"
		     "1:"
		     : "+D"(cred)
		     : [entry] "r"(entry)
		     : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}
STACK_FRAME_NON_STANDARD(jump_to);

/* The same with a return to code of user memory, which jumps to where %rbx points. */
static noinline void jump_and_return_to(unsigned long entry, const struct cred *cred, unsigned long code)
{
	asm volatile("leaq 1f(%%rip), %%rbx\n\t"
		     "pushq %[code]\n\t" ANNOTATE_RETPOLINE_SAFE "\n\t"
		     "jmp *%[entry]\n\t"
		     "1:"
		     : "+D"(cred)
		     : [entry] "r"(entry), [code] "r"(code)
		     : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}
STACK_FRAME_NON_STANDARD(jump_and_return_to);

/* By a jump that returns to an instruction of the kernel's, behind a call: by its return address it was called there.
 * What follows takes so many words from the stack, some into registers that are not its own, and returns. */
static noinline void jump_and_return_through(unsigned long entry, const struct cred *cred, unsigned long place,
					     unsigned long words)
{
	asm volatile("pushq %%rbx\n\t"
		     "pushq %%rbp\n\t"
		     "pushq %%r12\n\t"
		     "pushq %%r13\n\t"
		     "pushq %%r14\n\t"
		     "pushq %%r15\n\t"
		     "leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t"
		     "2: testq %[words], %[words]\n\t"
		     "jz 3f\n\t"
		     "pushq $0\n\t"
		     "decq %[words]\n\t"
		     "jmp 2b\n\t"
		     "3: pushq %[place]\n\t" ANNOTATE_RETPOLINE_SAFE "\n\t"
		     "jmp *%[entry]\n\t"
		     "1: popq %%r15\n\t"
		     "popq %%r14\n\t"
		     "popq %%r13\n\t"
		     "popq %%r12\n\t"
		     "popq %%rbp\n\t"
		     "popq %%rbx"
		     : "+D"(cred), [words] "+r"(words)
		     : [entry] "r"(entry), [place] "r"(place)
		     : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
}
STACK_FRAME_NON_STANDARD(jump_and_return_through);

/* The processor would not let it happen, and that would be the end of this kernel. */
static bool prevented(const char *shape)
{
	return (!strcmp(shape, "user_stack") && boot_cpu_has(X86_FEATURE_SMAP)) ||
	       (!strcmp(shape, "user_code") && boot_cpu_has(X86_FEATURE_SMEP));
}

int hijack(const struct hijack *how)
{
	const struct cred *cred = (const struct cred *)how->init_cred;

	if (prevented(how->shape))
		return -EOPNOTSUPP;
	if (how->number)
		current_pt_regs()->orig_ax = how->number;
	if (!strcmp(how->shape, "inside")) /* a whole function of the kernel's, which itself calls commit_creds() */
		return ((int (*)(unsigned long))how->entry)(how->user);
	/* An exploit does not count itself among its users, and the kernel notices at the attacker's end. */
	if (cred)
		get_cred(cred);
	else
		cred = prepare_kernel_cred((struct task_struct *)how->init_task);
	if (!cred)
		return -ENOMEM;
	if (!strcmp(how->shape, "call"))
		commit_creds((struct cred *)cred);
	else if (!strcmp(how->shape, "jump"))
		jump_to(how->entry, cred);
	else if (!strcmp(how->shape, "forged"))
		jump_and_return_through(how->entry, cred, how->user, how->words);
	else if (!strcmp(how->shape, "user_code"))
		jump_and_return_to(how->entry, cred, how->user);
	else if (!strcmp(how->shape, "user_stack"))
		call_on(how->entry, cred, how->user);
	else if (!strcmp(how->shape, "kernel_stack"))
		call_on(how->entry, cred, (unsigned long)foreign_stack + sizeof(foreign_stack) - 64);
	else
		return -EINVAL;
	return 0;
}
