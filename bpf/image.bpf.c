/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What each process runs, noted when it executed that (krie/bpf/binding.bpf.c): the executable's identity, and what has
 * influenced the process from outside since. mm->exe_file alone is no identity: prctl(PR_SET_MM) puts any file there.
 * Pasted behind the prelude.
 */

struct krie_process {
	u64 start_time;
	u32 tgid;
	u32 kind; /* of the operation that a verdict is about; 0 for poison, and here */
};

struct krie_file {
	u64 ino;
	u32 dev;
	u32 generation;
};

/* Why a process has no name although its executable has one: bits of header.context; INFLUENCE in krie/events/event.py. */
#define KRIE_LOST_TRACED 0x0004 /* a tracer changed its registers or memory */
#define KRIE_LOST_WRITTEN 0x0008 /* another process wrote to its memory */
#define KRIE_LOST_ENVIRONMENT 0x0010 /* a variable for the dynamic linker, or more than is looked through */
#define KRIE_LOST_EXECUTABLE 0x0020 /* it claims another executable since: PR_SET_MM */
#define KRIE_LOST_NAMESPACE 0x0040 /* whoever made its user or mount namespace chose its libraries */
#define KRIE_LOST_SHARED 0x0080 /* its memory is its parent's: vfork() before the exec */
#define KRIE_LOST_UNBOUND 0x0100 /* nobody saw what it executed */
#define KRIE_LOST_SUPERVISED 0x0200 /* somebody answers its system calls: a seccomp filter from before the exec */
#define KRIE_LOST 0x03fc

struct krie_image {
	struct krie_file file;
	u64 exe; /* mm->exe_file at that time, to compare with */
	u16 lost; /* known when it was noted */
	u8 traced, written; /* set by others meanwhile: bytes of their own, since 5.10 has no atomic or */
	u32 looked; /* whether the environment was looked through: that of what has a name, or is protected */
};
BPF_HASH(krie_images, struct krie_process, struct krie_image, KRIE_IMAGES);

/* Executables that have a name, or are protected: those that are looked at more closely. */
BPF_HASH(krie_named, struct krie_file, u32, 2048);

static __always_inline struct krie_process krie_process_of(struct task_struct *task)
{
	struct krie_process process = {
		.start_time = krie_start_time(task),
		.tgid = KRIE_READ(task_struct, task, tgid),
	};

	return process;
}

/* The current process. */
static __always_inline struct krie_process krie_current_process(void)
{
	struct krie_process process = {
		.start_time = krie_current_start_time(),
		.tgid = KRIE_LOAD(task_struct, krie_current_btf(), tgid),
	};

	return process;
}

/* What became of a process since it was noted: KRIE_LOST_... `mm`: its memory as a number. */
static __always_inline u32 krie_lost_since(struct krie_image *noted, struct mm_struct *mm)
{
	return noted->lost | noted->traced * KRIE_LOST_TRACED | noted->written * KRIE_LOST_WRITTEN |
	       (1 - krie_equal(noted->exe, (u64)KRIE_READ(mm_struct, mm, exe_file))) * KRIE_LOST_EXECUTABLE;
}

/* The current process's; NULL where nothing was noted. Not copied: some programs have no room left on their stack. */
static __always_inline struct krie_image *krie_current_image(u32 *lost)
{
	struct krie_process process = krie_current_process();
	struct krie_image *noted = krie_images.lookup(&process);

	*lost = noted ? krie_lost_since(noted, KRIE_READ(task_struct, krie_current(), mm)) : KRIE_LOST_UNBOUND;
	return noted;
}

static __always_inline bool krie_has_memory(void)
{
	return KRIE_READ(task_struct, krie_current(), mm) != NULL;
}

static __always_inline void krie_fill_image(struct krie_header *header)
{
	struct krie_image *noted;
	u32 lost;

	if (!krie_has_memory())
		return; /* a kernel thread */
	noted = krie_current_image(&lost);
	header->context |= lost;
	if (!noted)
		return;
	header->exe_dev = noted->file.dev;
	header->exe_ino = noted->file.ino;
	header->exe_generation = noted->file.generation;
}
