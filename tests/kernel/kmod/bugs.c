// SPDX-License-Identifier: GPL-2.0
/*
 * A kernel that has a known bug again, for one process: the check that mended it is left out, or passed where it is
 * part of the function that it guards. All else is done by the kernel's own code, as it was then.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernfs.h>
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/user_namespace.h>
#include <linux/version.h>

#include "krie_test.h"

#ifndef ASM_RET
#define ASM_RET "ret\n" /* before b17c2baa305c (5.17) */
#endif

struct bug_effect;

struct bug {
	const char *name;
	const char *check; /* the function that is not called, or is where this returns false */
	bool (*left_out)(const struct pt_regs *regs, unsigned long *answer, const struct bug_effect *made);
};

struct bug_effect {
	struct effect effect;
	struct kprobe probe;
	const struct bug *bug;
	const struct cred *maker;
	struct cgroup_namespace *groups; /* the maker's, too */
	pid_t process;
};

/* The stack's pointer cannot be changed by who is called by ftrace, so a return is returned to. */
void krie_test_return(void);
asm(".pushsection .text\n"
    ".type krie_test_return, @function\n"
    "krie_test_return:\n" ASM_RET ".size krie_test_return, .-krie_test_return\n"
    ".popsection\n");

/* CVE-2021-3493: what overlayfs writes to the file system below is written as it is (7c03e2cda4a5, 5.11). The check is
 * cap_convert_nscap(), and its last argument the size of what is to be written. */
static bool of_overlay(const struct pt_regs *regs, unsigned long *answer, const struct bug_effect *made)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 12, 0)
	*answer = regs->dx;
#else
	*answer = regs->cx;
#endif
	return true;
}

/* CVE-2023-0386: overlayfs copies up what belongs to who is nobody in the namespace (4f11ada10d0a, 6.2). The check asks
 * from_kuid() for a number there. */
static bool of_nobody(const struct pt_regs *regs, unsigned long *answer, const struct bug_effect *made)
{
	*answer = 0;
	return (u32)regs->si == 0 && (void *)regs->di == current_user_ns();
}

/* CVE-2022-0492: whoever can open it may say which program is run (24f600856418, 5.17). The check is within the
 * function that writes, and asks by whom the file was opened; since 467a726b754f (5.17) in which namespace of groups,
 * too, which cgroup_file_open() has put first into what is private. That one is not put back: nobody else may free it.
 */
static bool of_release_agent(const struct pt_regs *regs, unsigned long *answer, const struct bug_effect *made)
{
	struct kernfs_open_file *of = (void *)regs->di;
	struct cgroup_namespace **groups = of->priv;
	const struct cred *opener = of->file->f_cred;

	if (groups && *groups == current->nsproxy->cgroup_ns) {
		get_cgroup_ns(made->groups);
		*groups = made->groups;
	}
	of->file->f_cred = get_cred(made->maker);
	put_cred(opener);
	return false;
}

static const struct bug bugs[] = {
	{ "CVE-2021-3493", "cap_convert_nscap", of_overlay },
	{ "CVE-2023-0386", "from_kuid", of_nobody },
	{ "CVE-2022-0492", "cgroup_release_agent_write", of_release_agent },
};

static int leave_out(struct kprobe *probe, struct pt_regs *regs)
{
	struct bug_effect *made = container_of(probe, struct bug_effect, probe);
	unsigned long answer;

	if (current->tgid != made->process || !made->bug->left_out(regs, &answer, made))
		return 0;
	regs->ax = answer;
	regs->ip = (unsigned long)krie_test_return;
	return 1;
}

static void mend(struct effect *effect)
{
	struct bug_effect *made = container_of(effect, struct bug_effect, effect);

	unregister_kprobe(&made->probe);
	put_cred(made->maker);
}

struct effect *have_bug(const char *name)
{
	const struct bug *bug = NULL;
	struct bug_effect *made;
	size_t each;
	int error;

	for (each = 0; each < ARRAY_SIZE(bugs); each++)
		if (!strcmp(bugs[each].name, name))
			bug = &bugs[each];
	if (!bug)
		return ERR_PTR(-EINVAL);
	made = kzalloc(sizeof(*made), GFP_KERNEL);
	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = mend;
	made->bug = bug;
	made->maker = get_current_cred();
	made->groups = current->nsproxy->cgroup_ns;
	made->process = current->tgid;
	made->probe.symbol_name = bug->check;
	made->probe.pre_handler = leave_out;
	error = register_kprobe(&made->probe);
	if (error) {
		put_cred(made->maker);
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}
