// SPDX-License-Identifier: GPL-2.0
/* What the current process may do, changed by writes to memory alone, as exploits do it that call nothing. */
#include <linux/bitops.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/key.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/sched/user.h>
#include <linux/seccomp.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

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

static int tamper_with_contents(struct cred *cred, const char *what)
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
		clear_bit(PFA_NO_NEW_PRIVS, &current->atomic_flags);
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

static void unmark(void)
{
#ifdef SYSCALL_WORK_SECCOMP
	clear_syscall_work(SECCOMP);
#else
	clear_thread_flag(TIF_SECCOMP);
#endif
}

/* The filters of the parent, in which one is missing. Both counts of struct seccomp_filter come first. */
static int filter_as_parent(void)
{
	refcount_t *filter = (refcount_t *)current->real_parent->seccomp.filter;

	if (!filter)
		return -EINVAL;
	refcount_inc(&filter[0]);
	refcount_inc(&filter[1]);
	current->seccomp.filter = (struct seccomp_filter *)filter;
	return 0;
}

/* What seccomp forbids the process; its filters stay for good. */
static int tamper_with_seccomp(const char *what)
{
	if (!strcmp(what, " filter"))
		return filter_as_parent();
	if (*what && strcmp(what, " mark"))
		return -EINVAL;
	unmark();
	if (!*what) {
		current->seccomp.mode = 0;
		current->seccomp.filter = NULL;
	}
	return 0;
}

int tamper_with(const char *what)
{
	struct cred *cred = (struct cred *)current->real_cred;

	if (!strncmp(what, "seccomp", 7))
		return tamper_with_seccomp(what + 7);
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
		return tamper_with_contents(cred, what);
	return 0;
}
