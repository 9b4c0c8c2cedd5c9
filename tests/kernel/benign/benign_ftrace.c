// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What tracers do: a callback at a function's entry by ftrace. */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0) /* d19ad0775dcd */
#define ftrace_regs pt_regs
#endif

static atomic_t calls;

static void benign_called(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *regs)
{
	atomic_inc(&calls);
}

static struct ftrace_ops benign_ops = { .func = benign_called };

static int __init benign_init(void)
{
	char *function = "cmdline_proc_show";
	int error = ftrace_set_filter(&benign_ops, function, strlen(function), 1);

	return error ?: register_ftrace_function(&benign_ops);
}

static void __exit benign_exit(void)
{
	unregister_ftrace_function(&benign_ops);
	pr_info("benign_ftrace: %d calls\n", atomic_read(&calls));
}

module_init(benign_init);
module_exit(benign_exit);
MODULE_LICENSE("Dual BSD/GPL");
MODULE_DESCRIPTION("A benign user of ftrace, for KRIe's tests");
