// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What distributions do: one function of the kernel is replaced by livepatch. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int benign_cmdline_show(struct seq_file *file, void *unused)
{
	seq_puts(file, "patched by benign_livepatch\n");
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "cmdline_proc_show", .new_func = benign_cmdline_show },
	{}
};

static struct klp_object objects[] = { { .funcs = functions }, {} };

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init benign_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit benign_exit(void)
{
}

module_init(benign_init);
module_exit(benign_exit);
MODULE_LICENSE("Dual BSD/GPL");
MODULE_INFO(livepatch, "Y");
MODULE_DESCRIPTION("A benign live patch, for KRIe's tests");
