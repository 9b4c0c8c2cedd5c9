// SPDX-License-Identifier: GPL-2.0
/* What rootkits do with their own module: take it off the kernel's lists. */
#include <linux/err.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/slab.h>

#include "krie_test.h"

struct hidden_effect {
	struct effect effect;
	struct list_head *before; /* of the list of modules: what this one comes behind */
};

static void show_in_list(struct effect *effect)
{
	list_add_rcu(&THIS_MODULE->list, container_of(effect, struct hidden_effect, effect)->before);
}

static void show_in_kset(struct effect *effect)
{
	struct kobject *object = &THIS_MODULE->mkobj.kobj;

	spin_lock(&object->kset->list_lock);
	list_add_tail(&object->entry, &object->kset->list);
	spin_unlock(&object->kset->list_lock);
}

static struct hidden_effect *new_effect(void (*undo)(struct effect *effect))
{
	struct hidden_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);

	if (made)
		made->effect.undo = undo;
	return made;
}

struct effect *hide_from_list(void)
{
	struct hidden_effect *made = new_effect(show_in_list);

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->before = THIS_MODULE->list.prev;
	list_del_rcu(&THIS_MODULE->list);
	return &made->effect;
}

struct effect *hide_from_kset(void)
{
	struct kobject *object = &THIS_MODULE->mkobj.kobj;
	struct hidden_effect *made = new_effect(show_in_kset);

	if (!made)
		return ERR_PTR(-ENOMEM);
	spin_lock(&object->kset->list_lock);
	list_del_init(&object->entry);
	spin_unlock(&object->kset->list_lock);
	return &made->effect;
}
