// SPDX-License-Identifier: GPL-2.0
/* What an exploit does last: take root's credentials, and leave the kernel. */
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/objtool.h>
#include <linux/sched.h>
#include <asm/processor-flags.h>
#include <asm/segment.h>

#include "krie_test.h"

int become_root(unsigned long init_task)
{
	struct cred *cred = prepare_kernel_cred((struct task_struct *)init_task);

	return cred ? commit_creds(cred) : -ENOMEM;
}

/* Straight to user mode, as a ROP chain does it: none of the work on the way out, such as signals, is done. */
noinline void leave_kernel(unsigned long code, unsigned long stack)
{
	asm volatile("cli\n\t"
		     "pushq %[data]\n\t"
		     "pushq %[stack]\n\t"
		     "pushq %[flags]\n\t"
		     "pushq %[text]\n\t"
		     "pushq %[code]\n\t"
		     "swapgs\n\t"
		     "iretq"
		     :
		     : [data] "r"((unsigned long)__USER_DS), [stack] "r"(stack),
		       [flags] "r"((unsigned long)(X86_EFLAGS_IF | X86_EFLAGS_FIXED)),
		       [text] "r"((unsigned long)__USER_CS), [code] "r"(code)
		     : "memory");
}
STACK_FRAME_NON_STANDARD(leave_kernel);
