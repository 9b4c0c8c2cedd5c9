/* SPDX-License-Identifier: GPL-2.0 */
/* A module that does to a kernel what attackers do, so that detections can be tested. For guests only. */
#ifndef KRIE_TEST_H
#define KRIE_TEST_H

#include <linux/list.h>
#include <linux/types.h>

/* Something done that lasts until whoever asked for it closes the device. */
struct effect {
	struct list_head list;
	void (*undo)(struct effect *effect);
};

/* Whether this boot's command line allows the module: 0, or a negative error. */
int krie_test_permitted(void);

/* Each does one thing, and returns its effect or an error pointer. Addresses are the caller's responsibility. */
struct effect *register_kprobe_at(unsigned long address);
struct effect *patch_function(unsigned long address);
struct effect *disarm_kprobe_at(unsigned long get_kprobe, unsigned long address);
struct effect *flag_kprobe_at(unsigned long get_kprobe, unsigned long address);
struct effect *write_memory(unsigned long address, const u8 *bytes, size_t count);

/* Have a function of this module called when modules come and go. */
struct effect *be_notified(void);

/* Have the kernel take the current process for one that has every capability. For one at a time. */
struct effect *leave_out_checks(void);

/* Have the kernel have a bug again that was mended, for the current process. `name`: its number, see bugs.c. */
struct effect *have_bug(const char *name);

/* Make root the owner of a file, and leave its mode as it is. 0, or a negative error. */
int give_to_root(const char *path);

/* Have the kernel start a program as call_usermodehelper() does: words are its path, its arguments, `env` and
 * variables. They are changed. 0, or a negative error: not that of the program. */
int start_helper(char *words);

/* Have one called by a `timer`, as `delayed` work, as `work` that runs for as long as this lasts, or as a `filter` of
 * packets. */
struct effect *be_listed(const char *where);

/* Have a system call led to this module. */
struct diversion {
	char what[8]; /* table: a slot; slot: the same, led to `original` itself; jump: a jump or call of 32 bits;
			 inline: the begin of a function; tail: a jump, see divert.c */
	char how[8]; /* force: with the processor's write protection off; alias: by another mapping; poke: by
			text_poke() */
	unsigned long address;
	unsigned long original; /* what it leads to, and is called then */
	unsigned long text_poke; /* not exported: its address comes from the caller */
};
struct effect *divert(const struct diversion *how);

/* Have system calls enter the kernel, on this processor, by a detour through this module. */
struct effect *divert_entry(void);

/* Write so many bytes by another mapping of their page. 0, or a negative error. */
int write_by_alias(unsigned long address, const u8 *bytes, size_t count);

/* Take this module off the kernel's list of modules, or off the set of objects behind /sys/module. */
struct effect *hide_from_list(void);
struct effect *hide_from_kset(void);

/* Make the current process root by writing its `users` in place, or only the `effective` one, its `groups` or
 * `capabilities`, its `pointer` to credentials, or only that to the `subjective` ones; or put it into the first user
 * `namespace`, or make its session's `keyring` its own. Or write what they point to: the first of its `list` of groups,
 * the `owner`, the `map` of users, or the `last map` of five, of its namespace; or exchange the security modules'
 * `blob`, or the `account`; or let it gain `privileges` that it gave up. For good. */
int tamper_with(const char *what);

/* Do so to the thread of the current process that execs, once it waits for this one to end. */
int tamper_amid_exec(const char *what);

/* Do so to the current process, which then copies its credentials as one whose task says that it ends. */
int tamper_as_if_exiting(const char *what);

/* Have children of the current thread get root's users before they run. */
struct effect *bear_root(void);

/* Have the first user namespace lie below that of the current process, which must not be in it. */
struct effect *put_below_us(void);

/* Give the current process root's credentials. `init_task`: its address, which newer kernels do not export. */
int become_root(unsigned long init_task);

/* How commit_creds() is entered. Its credentials are `init_cred` or, where that is 0, a copy of those of `init_task`.
 */
struct hijack {
	char shape[16]; /* call, jump, forged, inside, user_code, user_stack or kernel_stack */
	unsigned long init_task;
	unsigned long init_cred;
	unsigned long entry; /* commit_creds(), or an instruction in it */
	unsigned long user; /* memory: a stack, or code that jumps to where %rbx points. Or the kernel's: where to
			       return to, or an argument */
	unsigned long words; /* that the code there takes from the stack */
	unsigned long number; /* of the system call that it shall look like; 0 for the one that it is */
};
int hijack(const struct hijack *how);

/* Go on at `code` in user mode. Nothing may be held, since this does not return. */
void leave_kernel(unsigned long code, unsigned long stack);

#endif
