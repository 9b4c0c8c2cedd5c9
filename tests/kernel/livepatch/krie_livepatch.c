// SPDX-License-Identifier: GPL-2.0
/* A live patch of a system call, as distributions ship them: sysfs(2), which nobody calls, fails with EXFULL. */
#include <linux/errno.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/ptrace.h>

static asmlinkage long patched_sysfs(const struct pt_regs *regs)
{
	return -EXFULL;
}

static struct klp_func functions[] = { { .old_name = "__x64_sys_sysfs", .new_func = patched_sysfs }, {} };
static struct klp_object objects[] = { { .funcs = functions }, {} };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init krie_livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit krie_livepatch_exit(void)
{
}

module_init(krie_livepatch_init);
module_exit(krie_livepatch_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KRIe's test of live patches");
MODULE_INFO(livepatch, "Y");
