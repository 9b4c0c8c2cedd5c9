// SPDX-License-Identifier: GPL-2.0
/* What can be done to the kernel, each with its undoing. */
#include <linux/err.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/pgtable_types.h>

#include "krie_test.h"

struct probe_effect {
	struct effect effect;
	struct kprobe probe;
};

static int nothing(struct kprobe *probe, struct pt_regs *regs)
{
	return 0;
}

static void unregister(struct effect *effect)
{
	unregister_kprobe(&container_of(effect, struct probe_effect, effect)->probe);
}

struct effect *register_kprobe_at(unsigned long address)
{
	struct probe_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	int error;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = unregister;
	made->probe.addr = (kprobe_opcode_t *)address;
	made->probe.pre_handler = nothing;
	error = register_kprobe(&made->probe);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}

struct disarm_effect {
	struct effect effect;
	struct kprobe *flagged; /* only compared, since its owner may have gone */
	struct kprobe *(*get_kprobe)(void *address); /* not exported: its address comes from the caller */
	void *address;
};

static struct kprobe *find(const struct disarm_effect *made)
{
	struct kprobe *found;

	preempt_disable();
	found = made->get_kprobe(made->address);
	/* What stands for several, or for one that may be optimized, cannot be disarmed itself. */
	if (found && !list_empty(&found->list))
		found = list_first_entry(&found->list, struct kprobe, list);
	preempt_enable();
	return found;
}

static void arm(struct effect *effect)
{
	/* Looked for again, since its owner may have gone. */
	struct kprobe *found = find(container_of(effect, struct disarm_effect, effect));

	if (found)
		enable_kprobe(found);
}

struct effect *disarm_kprobe_at(unsigned long get_kprobe, unsigned long address)
{
	struct disarm_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	struct kprobe *found;
	int error;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = arm;
	made->get_kprobe = (void *)get_kprobe;
	made->address = (void *)address;
	found = find(made);
	error = found ? disable_kprobe(found) : -ENOENT;
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}

static void unflag(struct effect *effect)
{
	struct disarm_effect *made = container_of(effect, struct disarm_effect, effect);
	struct kprobe *found = find(made);

	if (found && found == made->flagged)
		found->flags &= ~KPROBE_FLAG_DISABLED;
}

struct effect *flag_kprobe_at(unsigned long get_kprobe, unsigned long address)
{
	struct disarm_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	struct kprobe *found;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = unflag;
	made->get_kprobe = (void *)get_kprobe;
	made->address = (void *)address;
	found = find(made);
	if (!found) {
		kfree(made);
		return ERR_PTR(-ENOENT);
	}
	found->flags |= KPROBE_FLAG_DISABLED;
	made->flagged = found;
	return &made->effect;
}

struct memory_effect {
	struct effect effect;
	unsigned long address;
	size_t count;
	u8 before[16];
};

/* Through another mapping of the page, so that read-only data can be written too, as attackers do. */
int write_by_alias(unsigned long address, const u8 *bytes, size_t count)
{
	struct page *page = pfn_to_page(slow_virt_to_phys((void *)address) >> PAGE_SHIFT);
	char *writable = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!writable)
		return -ENOMEM;
	memcpy(writable + offset_in_page(address), bytes, count);
	vunmap(writable);
	return 0;
}

static void restore(struct effect *effect)
{
	struct memory_effect *made = container_of(effect, struct memory_effect, effect);

	WARN_ON(write_by_alias(made->address, made->before, made->count));
}

struct effect *write_memory(unsigned long address, const u8 *bytes, size_t count)
{
	struct memory_effect *made;
	int error = -EFAULT;

	if (!count || count > sizeof(made->before) || offset_in_page(address) + count > PAGE_SIZE)
		return ERR_PTR(-EINVAL);
	made = kzalloc(sizeof(*made), GFP_KERNEL);
	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = restore;
	made->address = address;
	made->count = count;
	if (!copy_from_kernel_nofault(made->before, (void *)address, count))
		error = write_by_alias(address, bytes, count);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}

struct notify_effect {
	struct effect effect;
	struct notifier_block block;
};

static int notified(struct notifier_block *block, unsigned long action, void *data)
{
	return NOTIFY_DONE;
}

static void be_notified_no_more(struct effect *effect)
{
	unregister_module_notifier(&container_of(effect, struct notify_effect, effect)->block);
}

struct effect *be_notified(void)
{
	struct notify_effect *made = kzalloc(sizeof(*made), GFP_KERNEL);
	int error;

	if (!made)
		return ERR_PTR(-ENOMEM);
	made->effect.undo = be_notified_no_more;
	made->block.notifier_call = notified;
	error = register_module_notifier(&made->block);
	if (error) {
		kfree(made);
		return ERR_PTR(error);
	}
	return &made->effect;
}
