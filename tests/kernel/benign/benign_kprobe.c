// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What tracers do: a kprobe and a kretprobe. */
#include <linux/kprobes.h>
#include <linux/module.h>

static atomic_t calls, returns;

static int benign_entered(struct kprobe *probe, struct pt_regs *regs)
{
	atomic_inc(&calls);
	return 0;
}

static int benign_returned(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	atomic_inc(&returns);
	return 0;
}

static struct kprobe benign_entry = { .symbol_name = "cmdline_proc_show", .pre_handler = benign_entered };
static struct kretprobe benign_return = { .kp.symbol_name = "version_proc_show", .handler = benign_returned };

static int __init benign_init(void)
{
	int error = register_kprobe(&benign_entry);

	if (error)
		return error;
	error = register_kretprobe(&benign_return);
	if (error)
		unregister_kprobe(&benign_entry);
	return error;
}

static void __exit benign_exit(void)
{
	unregister_kretprobe(&benign_return);
	unregister_kprobe(&benign_entry);
	pr_info("benign_kprobe: %d calls, %d returns\n", atomic_read(&calls), atomic_read(&returns));
}

module_init(benign_init);
module_exit(benign_exit);
MODULE_LICENSE("Dual BSD/GPL");
MODULE_DESCRIPTION("A benign user of kprobes, for KRIe's tests");
