/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What each process runs, noted when it executed that (krie/bpf/binding.bpf.c): the executable's identity, and what has
 * influenced the process from outside since. mm->exe_file alone proves nothing: prctl(PR_SET_MM) puts any file there.
 * Pasted behind the prelude.
 */

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
