/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What a bpf(2) call is about: its map, program or link, and what that is attached to.
 */

/* The names of their files, which are in no folder, as numbers: "bpf-map" with its end, "bpf-prog", "bpf_link". */
#define RUNTIME_INTEGRITY_MAP_FILE 0x0070616d2d667062ULL
#define RUNTIME_INTEGRITY_PROG_FILE 0x676f72702d667062ULL
#define RUNTIME_INTEGRITY_LINK_FILE 0x6b6e696c5f667062ULL

#define RUNTIME_INTEGRITY_BPF_OBJ_PIN 6 /* enum bpf_cmd */
#define RUNTIME_INTEGRITY_BPF_OBJ_GET 7
#define RUNTIME_INTEGRITY_BPF_PROG_ATTACH 8
#define RUNTIME_INTEGRITY_BPF_PROG_DETACH 9
#define RUNTIME_INTEGRITY_BPF_PROG_TEST_RUN 10
#define RUNTIME_INTEGRITY_BPF_OBJ_GET_INFO 15
#define RUNTIME_INTEGRITY_BPF_RAW_TRACEPOINT_OPEN 17
#define RUNTIME_INTEGRITY_BPF_MAP_FREEZE 22
#define RUNTIME_INTEGRITY_BPF_LINK_CREATE 28
#define RUNTIME_INTEGRITY_BPF_LINK_UPDATE 29
#define RUNTIME_INTEGRITY_BPF_ITER_CREATE 33
#define RUNTIME_INTEGRITY_BPF_LINK_DETACH 34
#define RUNTIME_INTEGRITY_BPF_PROG_BIND_MAP 35

#define RUNTIME_INTEGRITY_IS(name) krie_equal(command, RUNTIME_INTEGRITY_BPF_##name)

struct runtime_integrity_object {
	u64 id;
	u64 name; /* its address in the kernel's memory */
};

/* The map, program or link that the call is about, by its descriptor. By arithmetic: see krie_register(). */
static __always_inline struct runtime_integrity_object
runtime_integrity_object_of(u64 command, const u32 *attr, struct runtime_integrity_bpf_inline *known)
{
	struct runtime_integrity_object object;
	u64 third = RUNTIME_INTEGRITY_IS(OBJ_PIN) | RUNTIME_INTEGRITY_IS(RAW_TRACEPOINT_OPEN);
	u64 second = RUNTIME_INTEGRITY_IS(PROG_ATTACH) | RUNTIME_INTEGRITY_IS(PROG_DETACH);
	u64 first = RUNTIME_INTEGRITY_IS(PROG_TEST_RUN) | RUNTIME_INTEGRITY_IS(OBJ_GET_INFO) |
		    RUNTIME_INTEGRITY_IS(MAP_FREEZE) | RUNTIME_INTEGRITY_IS(LINK_CREATE) |
		    RUNTIME_INTEGRITY_IS(LINK_UPDATE) | RUNTIME_INTEGRITY_IS(ITER_CREATE) |
		    RUNTIME_INTEGRITY_IS(LINK_DETACH) | RUNTIME_INTEGRITY_IS(PROG_BIND_MAP);
	u64 descriptor = attr[0] * first + attr[1] * second + attr[2] * third;
	u64 name = 0, base, aux, map, prog, link;
	struct dentry *dentry;
	struct file *file;

	file = krie_open_file(descriptor | ((first | second | third) - 1)); /* no descriptor is as high as that */
	dentry = KRIE_READ(file, file, f_path.dentry);
	bpf_probe_read_kernel(&name, sizeof(name), KRIE_READ(dentry, dentry, d_name.name));
	map = krie_equal(name, RUNTIME_INTEGRITY_MAP_FILE);
	prog = krie_equal(name, RUNTIME_INTEGRITY_PROG_FILE);
	link = krie_equal(name, RUNTIME_INTEGRITY_LINK_FILE);
	known->object = map * RUNTIME_INTEGRITY_BPF_OBJECT_MAP + prog * RUNTIME_INTEGRITY_BPF_OBJECT_PROG +
			link * RUNTIME_INTEGRITY_BPF_OBJECT_LINK;
	base = (u64)KRIE_READ(file, file, private_data) * (map | prog | link);
	known->map_type = KRIE_READ(bpf_map, base, map_type) * map + attr[0] * krie_equal(command, BPF_MAP_CREATE);
	known->prog_type = KRIE_READ(bpf_prog, base, type) * prog;
	known->attach_type = attr[2] * (second | RUNTIME_INTEGRITY_IS(LINK_CREATE));
	aux = (u64)KRIE_READ(bpf_prog, base, aux) * prog; /* of anything else it would be no address */
	object.id = KRIE_READ(bpf_map, base, id) * map + KRIE_READ(bpf_link, base, id) * link +
		    KRIE_READ(bpf_prog_aux, aux, id) * prog;
	object.name = (u64)KRIE_ADDRESS(bpf_prog_aux, aux, name) * prog + (u64)KRIE_ADDRESS(bpf_map, base, name) * map;
	return object;
}

/* What a program is attached to by a descriptor: of a cgroup, its inode's number is its id. */
static __always_inline u64 runtime_integrity_target(u32 descriptor)
{
	struct file *file = krie_open_file(descriptor);
	struct inode *inode = KRIE_READ(file, file, f_inode);

	return file ? KRIE_READ(inode, inode, i_ino) : 0;
}

/* Attach types whose target is a network interface: xdp, tcx, netkit. */
static __always_inline bool runtime_integrity_is_interface(u32 attach_type)
{
	return attach_type == 37 || attach_type == 46 || attach_type == 47 || attach_type == 54 || attach_type == 55;
}
