/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * bpf(2) on the agent's maps, programs and links: nobody gets a descriptor of one, and who took one before the guard
 * was on can do nothing by it. Behind agents_own.bpf.c; shared by the programs of the sensors containment and guard.
 */

#define GUARD_MAP_UPDATE_ELEM 2 /* enum bpf_cmd */
#define GUARD_MAP_DELETE_ELEM 3
#define GUARD_PROG_TEST_RUN 10
#define GUARD_PROG_GET_FD_BY_ID 13
#define GUARD_MAP_GET_FD_BY_ID 14
#define GUARD_MAP_LOOKUP_AND_DELETE_ELEM 21
#define GUARD_MAP_FREEZE 22
#define GUARD_MAP_LOOKUP_AND_DELETE_BATCH 25
#define GUARD_MAP_DELETE_BATCH 27
#define GUARD_LINK_CREATE 28
#define GUARD_LINK_UPDATE 29
#define GUARD_LINK_GET_FD_BY_ID 30
#define GUARD_LINK_DETACH 34

#define GUARD_WORDS 29 /* of union bpf_attr, up to attach_prog_fd: the last that may be a descriptor */
#define GUARD_UPDATE_VALUE                                                                                             \
	16 /* offset there of a map's new value: a descriptor, where it is a map of maps or of programs */
#define GUARD_LINK_ITERATED 16 /* and of link_create.iter_info, which begins with a map's descriptor */
#define GUARD_LINK_ITER 4 /* BPF_LINK_TYPE_ITER, enum bpf_link_type */
#define GUARD_ENOENT 2

/* Ids of the agent's own objects. */
KRIE_STATE("hash", u32, u32, containment_own_maps, 256);
KRIE_STATE("hash", u32, u32, containment_own_programs, 1024);
KRIE_STATE("hash", u32, u32, containment_own_links, 1024);

/* For whoever asks for a descriptor by number: as if the object had just gone. Tools that list all objects go on with
 * the next one then, where any other error ends their list. */
static __always_inline int containment_hide(struct krie_process *process, u32 operation)
{
	containment_note(process, operation, 0);
	return containment_error(GUARD_ENOENT);
}

static __always_inline bool containment_is_own_program(struct bpf_prog *program)
{
	struct bpf_prog_aux *aux = KRIE_READ(bpf_prog, program, aux);
	u32 number = KRIE_READ(bpf_prog_aux, aux, id);

	return containment_own_programs.lookup(&number) != NULL;
}

/* Whether a descriptor of the current task leads to a map or a program of the agent's, or to somebody's iterator over
 * such a map, whose program writes it. What private_data means, the name tells that the kernel gave the file: of any
 * other file, a number there could be that of a map by chance. */
static __always_inline bool containment_is_own(u32 descriptor)
{
	struct file *file = krie_open_file(descriptor);
	void *object = KRIE_READ(file, file, private_data);
	u64 name = krie_file_name(file);
	u32 number;

	if (name == KRIE_PROGRAM_FILE)
		return containment_is_own_program(object);
	if (name == KRIE_LINK_FILE && KRIE_READ(bpf_link, object, type) == GUARD_LINK_ITER)
		object = KRIE_READ(bpf_iter_link, object, aux.map);
	else if (name != KRIE_MAP_FILE)
		return false;
	number = KRIE_READ(bpf_map, object, id);
	return containment_own_maps.lookup(&number) != NULL;
}

/* Whether the attributes name such a descriptor, in whatever place: where a command has another number there, it would
 * still have to be the number of a descriptor that its caller should not have. */
static __always_inline bool containment_names_own(void *attributes)
{
	if (containment_is_own(0))
		return true;
#pragma clang loop unroll(disable)
	for (u64 index = krie_uncounted(); index < GUARD_WORDS && KRIE_GOES_ON; index++) {
		u32 word = 0;

		bpf_probe_read_kernel(&word, sizeof(word), attributes + index * sizeof(word));
		if (word && containment_is_own(word))
			return true;
	}
	return false;
}

/* The same of the first number in the caller's memory that the attributes point to. */
static __always_inline bool containment_points_to_own(void *attributes, const u32 offset)
{
	void *pointer = NULL;
	u32 word = 0;

	bpf_probe_read_kernel(&pointer, sizeof(pointer), attributes + offset);
	return !bpf_probe_read_user(&word, sizeof(word), pointer) && containment_is_own(word);
}

static __always_inline bool containment_writes(u32 command)
{
	return command == GUARD_MAP_UPDATE_ELEM || command == GUARD_MAP_DELETE_ELEM ||
	       command == GUARD_MAP_LOOKUP_AND_DELETE_ELEM || command == GUARD_MAP_FREEZE ||
	       (command >= GUARD_MAP_LOOKUP_AND_DELETE_BATCH && command <= GUARD_MAP_DELETE_BATCH);
}

/* bpf(2), whose attributes are the kernel's copy. Nobody but the agent detaches or changes a link, anyone's: which link
 * a descriptor is could be changed by another thread after this look. */
static __always_inline int containment_guard_bpf(u32 command, void *given)
{
	void *attributes = krie_without_type(given);
	struct krie_process process;
	u32 number = 0, agent;
	bool own;

	if (!containment_stranger(&process, &agent))
		return 0;
	if (command == GUARD_LINK_DETACH || command == GUARD_LINK_UPDATE)
		return containment_guard(&process, CONTAINMENT_LINK_CHANGED);
	bpf_probe_read_kernel(&number, sizeof(number), attributes); /* an id, or a descriptor */
	if (command == GUARD_MAP_GET_FD_BY_ID && containment_own_maps.lookup(&number))
		return containment_hide(&process, CONTAINMENT_MAP_OPENED);
	if (command == GUARD_PROG_GET_FD_BY_ID && containment_own_programs.lookup(&number))
		return containment_hide(&process, CONTAINMENT_PROGRAM_OPENED);
	if (command == GUARD_LINK_GET_FD_BY_ID && containment_own_links.lookup(&number))
		return containment_hide(&process, CONTAINMENT_LINK_OPENED);
	if (!containment_outsider(&process, &agent))
		return 0;
	/* By a descriptor from before the guard was on. Which one it is could be changed by another thread after this
	 * look. */
	own = containment_names_own(attributes);
	if (!own && command == GUARD_MAP_UPDATE_ELEM)
		own = containment_points_to_own(attributes, GUARD_UPDATE_VALUE);
	if (!own && command == GUARD_LINK_CREATE)
		own = containment_points_to_own(attributes, GUARD_LINK_ITERATED);
	if (!own)
		return 0;
	if (command == GUARD_PROG_TEST_RUN)
		return containment_guard(&process, CONTAINMENT_PROGRAM_RUN);
	if (containment_writes(command))
		return containment_guard(&process, CONTAINMENT_MAP_WRITTEN);
	return containment_guard(&process, CONTAINMENT_OBJECT_USED);
}

/* A program that is put on a performance event by ioctl(2), the one use of it outside bpf(2): on events of
 * somebody else's it would see what is not meant for it, such as registers that he chose. The other ways take only
 * programs of types that the agent has none of: for sockets, packets and queues of network devices. */
static __always_inline int containment_guard_event(u32 descriptor)
{
	struct krie_process process;
	u32 agent;

	if (containment_outsider(&process, &agent) && containment_is_own(descriptor))
		return containment_guard(&process, CONTAINMENT_OBJECT_USED);
	return 0;
}
