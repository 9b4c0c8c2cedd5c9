// SPDX-License-Identifier: GPL-2.0
/* Root's users for the current process by writes to memory alone, as exploits do it that call nothing. */
#include <linux/cred.h>
#include <linux/errno.h>
#include <linux/sched.h>
#include <linux/uidgid.h>

#include "krie_test.h"

static void make_root(struct cred *cred)
{
	cred->uid = cred->euid = cred->suid = cred->fsuid = GLOBAL_ROOT_UID;
}

void tamper_with_users(void)
{
	make_root((struct cred *)current->real_cred);
}

int tamper_with_pointer(void)
{
	struct cred *cred = prepare_creds();

	if (!cred)
		return -ENOMEM;
	make_root(cred);
	get_cred(cred); /* the process refers to it twice; what it had before stays for good */
	rcu_assign_pointer(current->real_cred, cred);
	rcu_assign_pointer(current->cred, cred);
	return 0;
}
