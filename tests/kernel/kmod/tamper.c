// SPDX-License-Identifier: GPL-2.0
/* What the current process may do, changed by writes to memory alone, as exploits do it that call nothing. */
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/key.h>
#include <linux/sched.h>
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

int tamper_with(const char *what)
{
	struct cred *cred = (struct cred *)current->real_cred;

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
		return -EINVAL;
	return 0;
}
