// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/krie_test: one command a write(). What it does lasts until the file is closed, or its process ends.
 *
 *   kprobe ADDRESS                register a kprobe
 *   patch ADDRESS                 handle a function by ftrace
 *   disarm GET_KPROBE ADDRESS     disarm the kprobe at an address, whoever's it is
 *   flag GET_KPROBE ADDRESS       only say so of it, as a write of its flags does: it stays in the text
 *   write ADDRESS BYTES           overwrite up to 16 bytes, also of read-only data
 *   divert WHAT HOW ADDRESS ORIGINAL TEXT_POKE
 *                                 have a system call led to this module, see divert.c
 *   entry                         have system calls enter the kernel through this module, on this processor
 *   unchecked                     have the kernel take this process for one that has every capability
 *   bug NAME                      have the kernel have a bug again, for this process, see bugs.c
 *   notify                        be called when modules come and go
 *   list WHERE                    be called for another reason, see be_listed()
 *   hide list, hide kset          take this module off the kernel's list of modules, or off the set of their objects
 *   below                         have the first user namespace lie below this process's own
 *   bear root                     have children of this thread get root's users before they run
 *   own PATH                      give a file to root, set-uid as it is, as a copy-up of an overlay does; for good
 *   start PATH WORD... env WORD...
 *                                 have the kernel start a program by itself with these arguments and variables; wait
 *                                 for its end
 *   tamper WHAT                   change what the process may do, for good; see tamper_with()
 *   amid WHAT                     the same to another thread, which execs, once it waits for this one to end
 *   exiting WHAT                  the same; then have credentials copied while the task says that it ends
 *   root INIT_TASK                become root, for good, as exploits do
 *   escape INIT_TASK CODE STACK   the same, and go on at CODE in user mode by an iretq: the write() does not return
 *   hijack SHAPE INIT_TASK INIT_CRED ENTRY MEMORY CODE STACK [NUMBER]
 *                                 become root by a hijack, see hijack.c; return if CODE is 0, else go on there. With
 *                                 NUMBER as if in this system call
 *                                 likewise; then STACK is the number of words of `struct hijack`
 *
 * Addresses and bytes are hexadecimal, without 0x. With the parameter probed=ADDRESS (with 0x) it registers a kprobe
 * when it is loaded; with diverted="WHAT HOW ADDRESS ORIGINAL TEXT_POKE" it has a system call led to itself.
 */
#define pr_fmt(format) KBUILD_MODNAME ": " format

#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#if __has_include(<linux/hex.h>)
#include <linux/hex.h> /* hex2bin() is in linux/kernel.h before Linux 6.4 */
#endif

#include "krie_test.h"

#define LONGEST 191

struct session {
	struct mutex lock;
	struct list_head effects;
};

static int device_open(struct inode *inode, struct file *file)
{
	struct session *session = kzalloc(sizeof(*session), GFP_KERNEL);

	if (!session)
		return -ENOMEM;
	mutex_init(&session->lock);
	INIT_LIST_HEAD(&session->effects);
	file->private_data = session;
	return 0;
}

static int device_release(struct inode *inode, struct file *file)
{
	struct session *session = file->private_data;
	struct effect *effect, *next;

	/* The latest first: list_add() put it at the head. */
	list_for_each_entry_safe(effect, next, &session->effects, list)
	{
		effect->undo(effect);
		kfree(effect);
	}
	kfree(session);
	return 0;
}

static struct effect *overwrite(unsigned long address, const char *hexadecimal)
{
	u8 bytes[16];
	size_t count = strlen(hexadecimal) / 2;

	if (strlen(hexadecimal) % 2 || count > sizeof(bytes) || hex2bin(bytes, hexadecimal, count))
		return ERR_PTR(-EINVAL);
	return write_memory(address, bytes, count);
}

static struct effect *diverted_by(const char *words)
{
	struct diversion how = {};

	if (sscanf(words, "%7s %7s %lx %lx %lx", how.what, how.how, &how.address, &how.original, &how.text_poke) != 5)
		return ERR_PTR(-EINVAL);
	return divert(&how);
}

static struct effect *perform(const char *command)
{
	unsigned long address, other;
	char bytes[34]; /* one more than write_memory() takes, so that too many are noticed */

	if (sscanf(command, "kprobe %lx", &address) == 1)
		return register_kprobe_at(address);
	if (sscanf(command, "patch %lx", &address) == 1)
		return patch_function(address);
	if (sscanf(command, "disarm %lx %lx", &other, &address) == 2)
		return disarm_kprobe_at(other, address);
	if (sscanf(command, "flag %lx %lx", &other, &address) == 2)
		return flag_kprobe_at(other, address);
	if (sscanf(command, "write %lx %33s", &address, bytes) == 2)
		return overwrite(address, bytes);
	if (!strncmp(command, "divert ", 7))
		return diverted_by(command + 7);
	if (!strcmp(command, "entry"))
		return divert_entry();
	if (!strcmp(command, "unchecked"))
		return leave_out_checks();
	if (!strncmp(command, "bug ", 4))
		return have_bug(command + 4);
	if (!strcmp(command, "below"))
		return put_below_us();
	if (!strcmp(command, "bear root"))
		return bear_root();
	if (!strcmp(command, "notify"))
		return be_notified();
	if (!strncmp(command, "list ", 5))
		return be_listed(command + 5);
	if (!strcmp(command, "hide list"))
		return hide_from_list();
	if (!strcmp(command, "hide kset"))
		return hide_from_kset();
	return ERR_PTR(-EINVAL);
}

static int hijacked(const char *command)
{
	unsigned long code, stack = 0;
	struct hijack how = {};
	int error = -EINVAL;

	if (sscanf(command, "hijack %15s %lx %lx %lx %lx %lx %lx %lx", how.shape, &how.init_task, &how.init_cred,
		   &how.entry, &how.user, &code, &stack, &how.number) >= 7)
		error = 0;
	how.words = stack; /* where CODE is 0 */
	kfree(command);
	error = error ? error : hijack(&how);
	if (!error && code)
		leave_kernel(code, stack);
	return error;
}

/* What is done to the calling process, and has no undoing. Frees the command: an escape does not come back. */
static int escalate(char *command)
{
	unsigned long init_task, code, stack;
	bool escape = sscanf(command, "escape %lx %lx %lx", &init_task, &code, &stack) == 3;
	bool known = escape || sscanf(command, "root %lx", &init_task) == 1;
	int error = -EINVAL;

	if (!strncmp(command, "tamper ", 7))
		error = tamper_with(command + 7);
	if (!strncmp(command, "amid ", 5))
		error = tamper_amid_exec(command + 5);
	if (!strncmp(command, "exiting ", 8))
		error = tamper_as_if_exiting(command + 8);
	if (!strncmp(command, "own ", 4))
		error = give_to_root(command + 4);
	if (!strncmp(command, "start ", 6))
		error = start_helper(command + 6);
	kfree(command);
	if (!known)
		return error;
	error = become_root(init_task);
	if (!error && escape)
		leave_kernel(code, stack);
	return error;
}

static bool escalates(const char *command)
{
	return !strncmp(command, "root ", 5) || !strncmp(command, "escape ", 7) || !strncmp(command, "tamper ", 7) ||
	       !strncmp(command, "amid ", 5) || !strncmp(command, "exiting ", 8) || !strncmp(command, "hijack ", 7) ||
	       !strncmp(command, "own ", 4) || !strncmp(command, "start ", 6);
}

static ssize_t device_write(struct file *file, const char __user *text, size_t count, loff_t *position)
{
	struct session *session = file->private_data;
	struct effect *effect;
	char *command;

	if (count > LONGEST)
		return -EINVAL;
	command = memdup_user_nul(text, count);
	if (IS_ERR(command))
		return PTR_ERR(command);
	if (escalates(command)) {
		int error = *command == 'h' ? hijacked(command) : escalate(command);

		return error ? error : count;
	}
	mutex_lock(&session->lock);
	effect = perform(command);
	if (!IS_ERR(effect))
		list_add(&effect->list, &session->effects);
	mutex_unlock(&session->lock);
	kfree(command);
	return IS_ERR(effect) ? PTR_ERR(effect) : count;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = device_open,
	.release = device_release,
	.write = device_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "krie_test",
	.fops = &operations,
	.mode = 0600,
};

static unsigned long probed;
module_param(probed, ulong, 0);
static char *diverted;
module_param(diverted, charp, 0);
static struct effect *at_start;

static int __init krie_test_init(void)
{
	int error = krie_test_permitted();

	if (error) {
		pr_err("refused: boot with krie.test_module=allow\n");
		return error;
	}
	if (probed || diverted) {
		at_start = probed ? register_kprobe_at(probed) : diverted_by(diverted);
		if (IS_ERR(at_start))
			return PTR_ERR(at_start);
	}
	return misc_register(&device);
}

static void __exit krie_test_exit(void)
{
	misc_deregister(&device);
	if (at_start) {
		at_start->undo(at_start);
		kfree(at_start);
	}
}

module_init(krie_test_init);
module_exit(krie_test_exit);
MODULE_DESCRIPTION("Does to a kernel what attackers do, for KRIe's tests; never load it outside of a test guest");
MODULE_LICENSE("GPL");
