/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Who has a right: what the kernel's own checks ask of credentials, asked again.
 */

#define CFI_CAP_CHOWN 0 /* include/uapi/linux/capability.h */
#define CFI_CAP_DAC_OVERRIDE 1
#define CFI_CAP_SYS_MODULE 16
#define CFI_CAP_SYS_ADMIN 21
#define CFI_CAP_MKNOD 27
#define CFI_CAP_SETFCAP 31
#define CFI_EXTENTS 5 /* UID_GID_MAP_MAX_BASE_EXTENTS, include/linux/user_namespace.h */
#define CFI_NESTING 4 /* user namespaces that are gone up */

static __always_inline u64 cfi_is_first(struct user_namespace *namespace)
{
	return krie_equal(KRIE_READ(user_namespace, namespace, level), 0);
}

static __always_inline u64 cfi_is_of_first(struct super_block *super)
{
	return cfi_is_first(KRIE_READ(super_block, super, s_user_ns));
}

static __always_inline u64 cfi_effective(struct cred *cred)
{
	u64 bits = 0;

	bpf_probe_read_kernel(&bits, sizeof(bits), KRIE_ADDRESS(cred, cred, cap_effective));
	return bits;
}

/* The capabilities that credentials have in the first user namespace. */
static __always_inline u64 cfi_global(struct cred *cred)
{
	return cfi_effective(cred) * cfi_is_first(KRIE_READ(cred, cred, user_ns));
}

static __always_inline struct cred *cfi_own(void)
{
	return (void *)KRIE_READ(task_struct, krie_current(), real_cred);
}

static __always_inline struct cred *cfi_acting(void)
{
	return (void *)KRIE_READ(task_struct, krie_current(), cred);
}

/* Whether one of these capabilities is there, in the first user namespace. */
static __always_inline u64 cfi_may(u64 capabilities)
{
	return krie_truth((cfi_global(cfi_own()) | cfi_global(cfi_acting())) & capabilities);
}

/* Whether files of this user are one's own. */
static __always_inline u64 cfi_is_one_of(struct cred *own, struct cred *acting, u32 uid)
{
	return krie_equal(KRIE_READ(cred, own, fsuid.val), uid) | krie_equal(KRIE_READ(cred, acting, fsuid.val), uid);
}

static __always_inline u64 cfi_is(u32 uid)
{
	return cfi_is_one_of(cfi_own(), cfi_acting(), uid);
}

/* Whether a user has a number in a user namespace; where that has too many ranges to look at, as if. */
static __always_inline u64 cfi_has_number(struct user_namespace *namespace, u32 uid)
{
	u64 extents = KRIE_READ(user_namespace, namespace, uid_map.nr_extents);
	struct uid_gid_extent extent[CFI_EXTENTS] = {};
	u64 found = krie_less(CFI_EXTENTS, extents);

	bpf_probe_read_kernel(extent, sizeof(extent), KRIE_ADDRESS(user_namespace, namespace, uid_map.extent));
#pragma unroll
	for (int each = 0; each < CFI_EXTENTS; each++)
		found |= krie_less(each, extents) * krie_less(uid - extent[each].lower_first, extent[each].count);
	return found;
}

/* Whether credentials have one of these capabilities over what is this user's, as the kernel's
 * capable_wrt_inode_uidgid(). */
static __always_inline u64 cfi_may_over(struct cred *cred, u64 capabilities, u32 uid)
{
	return krie_truth(cfi_effective(cred) & capabilities) * cfi_has_number(KRIE_READ(cred, cred, user_ns), uid);
}

/* Whether credentials have CAP_SYS_ADMIN in a user namespace, as cap_capable() of the kernel has it; where that is
 * nested deeper than this goes up, as if. */
static __always_inline u64 cfi_governs(struct cred *cred, struct user_namespace *namespace)
{
	struct user_namespace *mine = KRIE_READ(cred, cred, user_ns), *above;
	u64 may = cfi_effective(cred) >> CFI_CAP_SYS_ADMIN & 1;
	u32 uid = KRIE_READ(cred, cred, euid.val);
	u64 found = 0;

#pragma unroll
	for (int nesting = 0; nesting < CFI_NESTING; nesting++) {
		above = KRIE_READ(user_namespace, namespace, parent);
		found |= krie_equal((u64)namespace, (u64)mine) * krie_truth((u64)namespace) * may;
		found |= krie_truth((u64)above) * krie_equal((u64)above, (u64)mine) *
			 krie_equal(KRIE_READ(user_namespace, namespace, owner.val), uid);
		namespace = above;
	}
	return found | krie_truth((u64)namespace);
}
