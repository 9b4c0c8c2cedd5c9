/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Notes what each process runs when it executes that, and what influences it from outside later: see image.bpf.c. Part
 * of the sensor process; the first functions are called by its programs at fork, exec and exit, which run for every
 * process.
 */

#define PROCESS_STRINGS                                                                                                \
	512 /* of an environment, each up to PROCESS_STRING_BYTES; what goes on behind that counts as influence */
#define PROCESS_STRING_BYTES 128
#define PROCESS_FOLL_WRITE 1 /* include/linux/mm.h, since 6.3 include/linux/mm_types.h */

/* Whether a variable for the dynamic linker was given. It reads those that begin with LD_, and new ones come. */
static __always_inline u32 process_environment(struct mm_struct *mm)
{
	u64 at = KRIE_READ(mm_struct, mm, env_start), end = KRIE_READ(mm_struct, mm, env_end);
	char text[PROCESS_STRING_BYTES];
	u64 begins = 1, found = 0;
	u32 first;

#pragma clang loop unroll(disable)
	for (u64 i = krie_uncounted(); i < PROCESS_STRINGS && KRIE_GOES_ON; i++) {
		long size;

		if (at >= end)
			return found * KRIE_LOST_ENVIRONMENT;
		size = bpf_probe_read_user_str(text, sizeof(text), (void *)at);
		if (size <= 0)
			return KRIE_LOST_ENVIRONMENT;
		__builtin_memcpy(&first, text, sizeof(first));
		found |= begins & krie_small_less((first & 0xffffff) ^ ('L' | 'D' << 8 | '_' << 16), 1);
		begins = krie_small_less(size, PROCESS_STRING_BYTES); /* or it goes on, and at least its NUL is left */
		at += size - (1 - begins);
	}
	return KRIE_LOST_ENVIRONMENT;
}

/* Whether somebody without privileges could choose what is mounted, or lies below the root, where it finds its
 * libraries. */
static __always_inline u32 process_namespace(struct task_struct *task)
{
	const struct cred *cred = KRIE_READ(task_struct, task, cred);
	struct user_namespace *user = KRIE_READ(cred, cred, user_ns);
	struct nsproxy *proxy = KRIE_READ(task_struct, task, nsproxy);
	struct mnt_namespace *mounts = KRIE_READ(nsproxy, proxy, mnt_ns);
	struct user_namespace *owner = KRIE_READ(mnt_namespace, mounts, user_ns);

	return krie_truth(KRIE_READ(user_namespace, user, level) | KRIE_READ(user_namespace, owner, level)) *
	       KRIE_LOST_NAMESPACE;
}

/* Whether somebody answers its system calls: SECCOMP_RET_USER_NOTIF, with which any library can be put in place of the
 * one that it opens. More filters than are looked at count as well. */
#define PROCESS_FILTERS 32
static __always_inline u32 process_supervisor(struct task_struct *task)
{
#ifdef KRIE_HAS_seccomp_filter__notif
	struct seccomp_filter *filter = KRIE_READ(task_struct, task, seccomp.filter);
	u64 supervised = 0;

#pragma clang loop unroll(disable)
	for (u64 i = krie_uncounted(); i < PROCESS_FILTERS && filter && KRIE_GOES_ON; i++) {
		supervised |= (u64)KRIE_READ(seccomp_filter, filter, notif);
		filter = KRIE_READ(seccomp_filter, filter, prev);
	}
	return krie_truth(supervised | (u64)filter) * KRIE_LOST_SUPERVISED;
#else
	return 0;
#endif
}

/* What a task runs now, as if it had just executed that. */
static __always_inline void process_note(struct task_struct *task, struct krie_image *image)
{
	struct mm_struct *mm = KRIE_READ(task_struct, task, mm);
	struct file *file = KRIE_READ(mm_struct, mm, exe_file);

	image->exe = (u64)file;
	image->lost = process_namespace(task) | process_supervisor(task);
	krie_identity(file, &image->file.dev, &image->file.ino, &image->file.generation);
}

/* Whether the dynamic linker disregards its variables: a set-uid or set-gid program. */
static __always_inline bool process_is_secure(void)
{
	const struct cred *cred = KRIE_READ(task_struct, krie_current(), cred);

	return KRIE_READ(cred, cred, uid.val) != KRIE_READ(cred, cred, euid.val) ||
	       KRIE_READ(cred, cred, gid.val) != KRIE_READ(cred, cred, egid.val);
}

/* Note what the current process runs from now on. Returns what had influenced it before: KRIE_LOST_... That it had its
 * parent's memory is none: so do all that vfork() makes. Which executable it claimed then is gone with that memory. */
static __always_inline u32 process_bind(void)
{
	struct krie_process process = krie_current_process();
	struct krie_image *noted = krie_images.lookup(&process);
	struct krie_image image = {};
	u32 before = KRIE_LOST_UNBOUND;

	if (noted)
		before = (noted->lost & ~KRIE_LOST_SHARED) | noted->traced * KRIE_LOST_TRACED |
			 noted->written * KRIE_LOST_WRITTEN;

	process_note(krie_current(), &image);
	krie_forget(&image, sizeof(image));
	if (krie_named.lookup(&image.file) && !process_is_secure()) {
		image.lost |= process_environment(KRIE_READ(task_struct, krie_current(), mm));
		image.looked = 1;
	}
	krie_images.update(&process, &image);
	return before;
}

static __always_inline void process_inherit(struct task_struct *child)
{
	struct krie_process maker = krie_current_process(), made;
	struct krie_image *noted = krie_images.lookup(&maker);
	struct krie_image image;

	if (!noted)
		return;
	image = *noted;
	image.lost |=
	    krie_equal((u64)KRIE_READ(task_struct, child, mm), (u64)KRIE_READ(task_struct, krie_current(), mm)) *
	    KRIE_LOST_SHARED;
	made = krie_process_of(child);
	krie_images.update(&made, &image);
}

static __always_inline void process_forget(void)
{
	struct krie_process process = krie_current_process();

	krie_images.delete(&process);
}

KRIE_FOUND("array", u32, struct process_running, process_running, 1);

/* Run by the agent with BPF_PROG_TEST_RUN; the arguments are a tgid in its own PID namespace, and what it found when it
 * looked for influence: KRIE_LOST_... with bit 0, or 0 where it has not looked. Notes what the process runs where that
 * was not noted before. */
int process_running_now(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = krie_task_by_tid(krie_current(), ctx->args[0]);
	struct mm_struct *mm = KRIE_READ(task_struct, task, mm);
	struct krie_process process = krie_process_of(task);
	u64 found = ctx->args[1];
	struct process_running *answer;
	struct krie_image image = {};
	struct krie_image *noted;
	u32 zero = 0;

	answer = process_running.lookup(&zero);
	if (!answer || ctx->args[KRIE_SECRET_ARGUMENT] != krie_secret())
		return 0;
	__builtin_memset(answer, 0, sizeof(*answer));
	if (!mm)
		return 0;
	process_note(task, &image);
	krie_images.insert(&process, &image);
	noted = krie_images.lookup(&process);
	if (noted && found) {
		noted->lost |= found & KRIE_LOST;
		noted->looked = 1;
	}
	answer->start_time = process.start_time;
	answer->lost = noted ? krie_lost_since(noted, mm) : KRIE_LOST_UNBOUND;
	if (!noted)
		return 0;
	answer->looked = noted->looked;
	if (!(answer->lost & KRIE_LOST_EXECUTABLE))
		answer->file = noted->file;
	return 0;
}

/* Requests of ptrace(2) that change nothing of the tracee but when it runs: by their numbers, and by those from 0x4200
 * on. */
#define PROCESS_HARMLESS                                                                                               \
	(1ULL << 1 | 1ULL << 2 | 1ULL << 3 | 1ULL << 7 | 1ULL << 8 | 1ULL << 9 | 1ULL << 12 | 1ULL << 14 |             \
	 1ULL << 17 | 1ULL << 18 | 1ULL << 24 | 1ULL << 25 | 1ULL << 33)
#define PROCESS_HARMLESS_4200                                                                                          \
	(1ULL << 0 | 1ULL << 1 | 1ULL << 2 | 1ULL << 4 | 1ULL << 7 | 1ULL << 8 | 1ULL << 9 | 1ULL << 10 | 1ULL << 12 | \
	 1ULL << 13 | 1ULL << 14 | 1ULL << 15 | 1ULL << 17)

static __always_inline struct krie_image *process_image(struct task_struct *task)
{
	struct krie_process process = krie_process_of(task);

	return krie_images.lookup(&process);
}

/* arch_ptrace(child, request, ...), behind all checks */
static __always_inline int process_traced(struct task_struct *child, u64 request)
{
	u64 harmless = request < 64 ? PROCESS_HARMLESS >> request : 0;
	struct krie_image *image;

	krie_enter();
	if (request >= 0x4200 && request < 0x4200 + 64)
		harmless = PROCESS_HARMLESS_4200 >> (request - 0x4200);
	if (harmless & 1)
		return 0;
	image = process_image(child);
	if (image)
		image->traced = 1;
#ifdef KRIE_HAS_mm_struct__owner
	struct mm_struct *mm = KRIE_READ(task_struct, child, mm);

	image = process_image(KRIE_READ(mm_struct, mm, owner)); /* whose memory it has, during a vfork() */
	if (image)
		image->traced = 1;
#endif
	return 0;
}

/* Somebody is about to write to this memory, behind all checks. */
static __always_inline int process_written(struct mm_struct *mm, u64 flags)
{
	krie_enter();
#ifdef KRIE_HAS_mm_struct__owner
	struct mm_struct *own = KRIE_READ(task_struct, krie_current(), mm);
	struct krie_image *image;

	if (!(flags & PROCESS_FOLL_WRITE) || !own || own == mm)
		return 0;
	image = process_image(KRIE_READ(mm_struct, mm, owner));
	if (image)
		image->written = 1;
#endif
	return 0;
}

/* By fentry and by kprobe: arch_ptrace(child, request, addr, data), compat_arch_ptrace() likewise */
int process_ptrace_fentry(u64 *ctx)
{
	return process_traced((struct task_struct *)krie_without_type((void *)ctx[0]), ctx[1]);
}

int process_ptrace_kprobe(struct pt_regs *ctx)
{
	return process_traced((struct task_struct *)PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

/* access_remote_vm(mm, address, buffer, size, flags) */
int process_access_fentry(u64 *ctx)
{
	return process_written((struct mm_struct *)krie_without_type((void *)ctx[0]), ctx[4]);
}

int process_access_kprobe(struct pt_regs *ctx)
{
	return process_written((struct mm_struct *)PT_REGS_PARM1(ctx), PT_REGS_PARM5(ctx));
}

/* pin_user_pages_remote(mm, start, pages, flags, ...), by which process_vm_writev() writes */
int process_pin_fentry(u64 *ctx)
{
	return process_written((struct mm_struct *)krie_without_type((void *)ctx[0]), ctx[3]);
}

int process_pin_kprobe(struct pt_regs *ctx)
{
	return process_written((struct mm_struct *)PT_REGS_PARM1(ctx), PT_REGS_PARM4(ctx));
}
