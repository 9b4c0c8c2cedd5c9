// SPDX-License-Identifier: GPL-2.0
/* What the current process may do, changed by writes to memory alone, as exploits do it that call nothing. */
#include <linux/bitops.h>
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/key.h>
#include <linux/ptrace.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seccomp.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include <linux/version.h>

#include "krie_test.h"

static void make_root(struct cred *cred)
{
	cred->uid = cred->euid = cred->suid = cred->fsuid = GLOBAL_ROOT_UID;
}

/* Exchanges both pointers to credentials, or the one that the process acts by. What it had before stays for good. */
static int tamper_with_pointer(bool both)
{
	struct cred *cred = prepare_creds();

	if (!cred)
		return -ENOMEM;
	make_root(cred);
	if (both)
		rcu_assign_pointer(current->real_cred, get_cred(cred));
	rcu_assign_pointer(current->cred, cred);
	return 0;
}

/* A copy of a pointer's target lies elsewhere, and is never freed; what was there before stays for good, too. */
static void *elsewhere(const void *from, size_t bytes)
{
	void *copy = kzalloc(4096, GFP_KERNEL);

	if (copy && from)
		memcpy(copy, from, bytes);
	return copy;
}

static int tamper_with_contents(struct task_struct *task, struct cred *cred, const char *what)
{
	struct user_struct *user;
	void *blob;

	if (!strcmp(what, "list") && cred->group_info->ngroups) {
		cred->group_info->gid[0] = GLOBAL_ROOT_GID;
	} else if (!strcmp(what, "highest bits") && cred->group_info->ngroups > 3) {
		cred->group_info->gid[1].val ^= 1U << 31;
		cred->group_info->gid[3].val ^= 1U << 31;
	} else if (!strcmp(what, "owner") && cred->user_ns != &init_user_ns) {
		cred->user_ns->owner = KUIDT_INIT(12345);
	} else if (!strcmp(what, "map") && cred->user_ns != &init_user_ns) {
		cred->user_ns->uid_map.extent[0].count = 65536;
	} else if (!strcmp(what, "last map") && cred->user_ns->uid_map.nr_extents == 5) {
		cred->user_ns->uid_map.extent[4].count = 65536;
	} else if (!strcmp(what, "privileges")) {
		clear_bit(PFA_NO_NEW_PRIVS, &task->atomic_flags);
	} else if (!strcmp(what, "blob")) {
		blob = elsewhere(cred->security, 32);
		if (!blob)
			return -ENOMEM;
		cred->security = blob;
	} else if (!strcmp(what, "account")) {
		user = elsewhere(cred->user, sizeof(*user));
		if (!user)
			return -ENOMEM;
		refcount_set(&user->__count, 1 << 20);
		cred->user = user;
	} else {
		return -EINVAL;
	}
	return 0;
}

static void no_longer_below(struct effect *effect)
{
	init_user_ns.parent = NULL;
}

struct effect *put_below_us(void)
{
	struct effect *effect = kzalloc(sizeof(*effect), GFP_KERNEL);

	if (!effect)
		return ERR_PTR(-ENOMEM);
	effect->undo = no_longer_below;
	init_user_ns.parent = current_user_ns();
	return effect;
}

static void unmark(struct task_struct *task)
{
#ifdef SYSCALL_WORK_SECCOMP
	clear_task_syscall_work(task, SECCOMP);
#else
	clear_tsk_thread_flag(task, TIF_SECCOMP);
#endif
}

/* The filters of the parent, in which one is missing. Both counts of struct seccomp_filter come first. */
static int filter_as_parent(struct task_struct *task)
{
	refcount_t *filter = (refcount_t *)task->real_parent->seccomp.filter;

	if (!filter)
		return -EINVAL;
	refcount_inc(&filter[0]);
	refcount_inc(&filter[1]);
	task->seccomp.filter = (struct seccomp_filter *)filter;
	return 0;
}

/* The newest filter alone; in it is looked for where it names those of the parent as the ones behind it. */
static int filter_alone(struct task_struct *task)
{
	unsigned long *words = (unsigned long *)task->seccomp.filter;
	unsigned long behind = (unsigned long)task->real_parent->seccomp.filter;
	int word;

	for (word = 0; words && behind && word < 32; word++) {
		if (words[word] == behind) {
			words[word] = 0;
			return 0;
		}
	}
	return -EINVAL;
}

/* What seccomp forbids a thread; its filters stay for good. */
static int tamper_with_seccomp(struct task_struct *task, const char *what)
{
	if (!strcmp(what, " filter"))
		return filter_as_parent(task);
	if (!strcmp(what, " chain"))
		return filter_alone(task);
	if (!strcmp(what, " suspended")) {
		task->ptrace |= PT_SUSPEND_SECCOMP;
		return 0;
	}
	if (*what && strcmp(what, " mark"))
		return -EINVAL;
	unmark(task);
	if (!*what) {
		task->seccomp.mode = 0;
		task->seccomp.filter = NULL;
	}
	return 0;
}

static int tamper_with_task(struct task_struct *task, const char *what)
{
	struct cred *cred = (struct cred *)task->real_cred;

	if (!strncmp(what, "seccomp", 7))
		return tamper_with_seccomp(task, what + 7);
	if (!strcmp(what, "pointer"))
		return tamper_with_pointer(true);
	if (!strcmp(what, "subjective"))
		return tamper_with_pointer(false);
	if (!strcmp(what, "users"))
		make_root(cred);
	else if (!strcmp(what, "effective"))
		cred->euid = cred->fsuid = GLOBAL_ROOT_UID;
	else if (!strcmp(what, "groups"))
		cred->gid = cred->egid = cred->fsgid = GLOBAL_ROOT_GID;
	else if (!strcmp(what, "capabilities"))
		cred->cap_permitted = cred->cap_effective = cred->cap_bset;
	else if (!strcmp(what, "namespace"))
		cred->user_ns = get_user_ns(&init_user_ns); /* the one before stays for good */
	else if (!strcmp(what, "keyring"))
		cred->process_keyring = key_get(cred->session_keyring); /* likewise */
	else
		return tamper_with_contents(task, cred, what);
	return 0;
}

int tamper_with(const char *what)
{
	return tamper_with_task(current, what);
}

/* The thread of this process that execs, and waits for the others to end. */
static struct task_struct *who_execs(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
	return READ_ONCE(current->signal->group_exec_task);
#else
	return READ_ONCE(current->signal->group_exit_task);
#endif
}

/* It stays while this thread has not ended, as it waits for that. */
int tamper_amid_exec(const char *what)
{
	struct task_struct *task;
	int looks;

	for (looks = 0; looks < 1000; looks++) {
		task = who_execs();
		if (task)
			return tamper_with_task(task, what);
		msleep(10);
	}
	return -ETIMEDOUT;
}

/* Only for as long as credentials are copied: a thread that has this flag cannot end. */
int tamper_as_if_exiting(const char *what)
{
	int error = tamper_with(what);
	struct cred *cred;

	if (error)
		return error;
	current->flags |= PF_EXITING;
	cred = prepare_creds();
	current->flags &= ~PF_EXITING;
	if (!cred)
		return -ENOMEM;
	abort_creds(cred);
	return 0;
}
