// SPDX-License-Identifier: GPL-2.0
/* Children that have other credentials than their parent before they run, without a call. */
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/uidgid.h>

#include "krie_test.h"

struct birth_effect {
	struct effect effect;
	struct tracepoint *fork;
	struct task_struct *parent; /* only compared */
};

/* sched_process_fork(parent, child): the child has its credentials, and does not run yet. */
static void at_birth(void *data, struct task_struct *parent, struct task_struct *child)
{
	struct birth_effect *made = data;
	struct cred *cred = (struct cred *)child->real_cred;

	if (parent == made->parent && cred != parent->real_cred)
		cred->uid = cred->euid = cred->suid = cred->fsuid = GLOBAL_ROOT_UID;
}

static void find_fork(struct tracepoint *tracepoint, void *data)
{
	struct birth_effect *made = data;

	if (!strcmp(tracepoint->name, "sched_process_fork"))
		made->fork = tracepoint;
}

static void leave_births(struct effect *effect)
{
	struct birth_effect *made = container_of(effect, struct birth_effect, effect);

	tracepoint_probe_unregister(made->fork, at_birth, made);
	tracepoint_synchronize_unregister();
}

struct effect *bear_root(void)
{
	struct birth_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	int error = -ENOENT;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = leave_births;
	made->parent = current;
	for_each_kernel_tracepoint(find_fork, made);
	if (made->fork)
		error = tracepoint_probe_register(made->fork, at_birth, made);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}
