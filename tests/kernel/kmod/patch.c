// SPDX-License-Identifier: GPL-2.0
/* A function that is handled by ftrace, as rootkits and live patches do. */
#include <linux/err.h>
#include <linux/ftrace.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "krie_test.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
#define ftrace_regs pt_regs
#endif

struct patch_effect {
	struct effect effect;
	struct ftrace_ops ops;
};

static void notrace nothing(unsigned long address, unsigned long caller, struct ftrace_ops *ops,
			    struct ftrace_regs *regs)
{
}

static void unpatch(struct effect *effect)
{
	unregister_ftrace_function(&container_of(effect, struct patch_effect, effect)->ops);
}

struct effect *patch_function(unsigned long address)
{
	struct patch_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	int error;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = unpatch;
	made->ops.func = nothing;
	error = ftrace_set_filter_ip(&made->ops, address, 0, 0);
	if (!error)
		error = register_ftrace_function(&made->ops);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}
