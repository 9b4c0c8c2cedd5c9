// SPDX-License-Identifier: GPL-2.0
/* Functions of this module that the kernel calls, as rootkits have theirs called: entered in lists of the kernel's. */
#include <linux/binfmts.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/tracepoint.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>

#include "krie_test.h"

#define AN_HOUR_S 3600
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define timer_delete_sync del_timer_sync
#endif

struct listed_effect {
	struct effect effect;
	union {
		struct timer_list timer;
		struct delayed_work delayed;
		struct hrtimer precise;
		struct linux_binfmt format;
		struct task_struct *thread;
		struct tracepoint *tracepoint;
#ifdef CONFIG_NETFILTER
		struct nf_hook_ops filter;
#endif
		struct {
			struct work_struct work;
			struct completion done;
		};
	};
};

static struct listed_effect *listed(struct effect *effect)
{
	return container_of(effect, struct listed_effect, effect);
}

static void timer_function(struct timer_list *timer)
{
}

static void end_timer(struct effect *effect)
{
	timer_delete_sync(&listed(effect)->timer);
}

static int begin_timer(struct listed_effect *made)
{
	made->effect.undo = end_timer;
	timer_setup(&made->timer, timer_function, 0);
	return mod_timer(&made->timer, jiffies + AN_HOUR_S * HZ);
}

static void delayed_function(struct work_struct *work)
{
}

static void end_delayed(struct effect *effect)
{
	cancel_delayed_work_sync(&listed(effect)->delayed);
}

static int begin_delayed(struct listed_effect *made)
{
	made->effect.undo = end_delayed;
	INIT_DELAYED_WORK(&made->delayed, delayed_function);
	return schedule_delayed_work(&made->delayed, AN_HOUR_S * HZ) ? 0 : -EBUSY;
}

/* It runs until it is undone. */
static void work_function(struct work_struct *work)
{
	struct completion *done = &container_of(work, struct listed_effect, work)->done;

	while (!wait_for_completion_interruptible_timeout(done, HZ))
		;
}

static void end_work(struct effect *effect)
{
	complete(&listed(effect)->done);
	flush_work(&listed(effect)->work);
}

static int begin_work(struct listed_effect *made)
{
	made->effect.undo = end_work;
	init_completion(&made->done);
	INIT_WORK(&made->work, work_function);
	return schedule_work(&made->work) ? 0 : -EBUSY;
}

static enum hrtimer_restart precise_function(struct hrtimer *timer)
{
	return HRTIMER_NORESTART;
}

static void end_precise(struct effect *effect)
{
	hrtimer_cancel(&listed(effect)->precise);
}

static int begin_precise(struct listed_effect *made)
{
	made->effect.undo = end_precise;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	hrtimer_init(&made->precise, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	made->precise.function = precise_function;
#else
	hrtimer_setup(&made->precise, precise_function, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
#endif
	hrtimer_start(&made->precise, ktime_set(AN_HOUR_S, 0), HRTIMER_MODE_REL);
	return 0;
}

static int thread_function(void *data)
{
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

static void end_thread(struct effect *effect)
{
	kthread_stop(listed(effect)->thread);
}

static int begin_thread(struct listed_effect *made)
{
	made->effect.undo = end_thread;
	made->thread = kthread_run(thread_function, NULL, "krie-test");
	return PTR_ERR_OR_ZERO(made->thread);
}

/* It is asked last, after the kernel's own formats. */
static int load_none(struct linux_binprm *program)
{
	return -ENOEXEC;
}

static void end_format(struct effect *effect)
{
	unregister_binfmt(&listed(effect)->format);
}

static int begin_format(struct listed_effect *made)
{
	made->effect.undo = end_format;
	made->format.module = THIS_MODULE;
	made->format.load_binary = load_none;
	register_binfmt(&made->format);
	return 0;
}

/* sched_process_wait: nobody else has a function there, so that it is called without a list. */
static void at_wait(void *data, struct pid *pid)
{
}

static void find_wait(struct tracepoint *tracepoint, void *found)
{
	if (!strcmp(tracepoint->name, "sched_process_wait"))
		*(struct tracepoint **)found = tracepoint;
}

static void end_tracepoint(struct effect *effect)
{
	tracepoint_probe_unregister(listed(effect)->tracepoint, at_wait, NULL);
	tracepoint_synchronize_unregister();
}

static int begin_tracepoint(struct listed_effect *made)
{
	made->effect.undo = end_tracepoint;
	for_each_kernel_tracepoint(find_wait, &made->tracepoint);
	return made->tracepoint ? tracepoint_probe_register(made->tracepoint, at_wait, NULL) : -ENOENT;
}

#ifdef CONFIG_NETFILTER
static unsigned int accept_all(void *private, struct sk_buff *packet, const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static void end_filter(struct effect *effect)
{
	nf_unregister_net_hook(&init_net, &listed(effect)->filter);
}

static int begin_filter(struct listed_effect *made)
{
	made->effect.undo = end_filter;
	made->filter.hook = accept_all;
	made->filter.pf = NFPROTO_IPV4;
	made->filter.hooknum = NF_INET_PRE_ROUTING;
	made->filter.priority = NF_IP_PRI_LAST;
	return nf_register_net_hook(&init_net, &made->filter);
}
#endif

/* What asks a security module, as struct security_hook_list was before 6.12. Tests enter it in a list. */
static int permit(void)
{
	return 0;
}

extern struct krie_test_hook {
	void *next, **pprev, *head;
	int (*hook)(void);
} krie_test_hook;
struct krie_test_hook krie_test_hook = { .hook = permit };

struct way {
	const char *name;
	int (*begin)(struct listed_effect *made);
};

/* Not static: tests change a pointer in it. */
extern const struct way krie_test_ways[];
const struct way krie_test_ways[] = {
	{ "timer", begin_timer },	    { "delayed", begin_delayed }, { "work", begin_work },
	{ "precise", begin_precise },	    { "thread", begin_thread },	  { "format", begin_format },
	{ "tracepoint", begin_tracepoint },
#ifdef CONFIG_NETFILTER
	{ "filter", begin_filter },
#endif
};

struct effect *be_listed(const char *where)
{
	struct listed_effect *made;
	int error = -EINVAL;
	size_t way;

	made = kzalloc(sizeof(*made), GFP_KERNEL);
	if (!made)
		return ERR_PTR(-ENOMEM);
	for (way = 0; way < ARRAY_SIZE(krie_test_ways); way++)
		if (!strcmp(where, krie_test_ways[way].name))
			error = krie_test_ways[way].begin(made);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}
