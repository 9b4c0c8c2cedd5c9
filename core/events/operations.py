"""The guarded operations: what a poisoned process can no longer do, and why the kernel's other hooks are not guarded.

One declaration, from which come the programs that are attached (`krie.enforce.containment`) and the tables of
docs/explanation/containment.md. Names are those of the kernel's security hooks (include/linux/lsm_hook_defs.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ANY = "hook"
"""The C function of all operations that are refused whatever their arguments say."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One guarded operation, which one hook or several refuse."""

    number: int
    """In the kernel's counts and in events: never given to another one."""
    hook: str
    """Its name, too."""
    refuses: str
    """What no longer works, for people."""
    further: tuple[str, ...] = ()
    """Hooks of newer kernels that refuse more of the same; older ones do without."""
    function: str = ANY
    """The C function behind `containment_`."""
    alike: bool = False
    """Whether further hooks have the same arguments, and so the same function."""


_FUNCTIONS: Mapping[str, str] = {"bprm_check_security": "bprm_check", "userns_create": "create_user_ns"}


def function_of(hook: str) -> str:
    """The kernel's function that asks a hook, by which fmod_ret refuses."""
    return f"security_{_FUNCTIONS.get(hook, hook)}"


ALL = (
    Operation(1, "file_open", "opening files", function="file_open"),
    Operation(2, "inode_create", "making files", function="inode_make"),
    Operation(3, "inode_unlink", "removing files"),
    Operation(4, "inode_rename", "renaming"),
    Operation(5, "inode_setattr", "changing mode, owner, size and times of files", function="inode_setattr"),
    Operation(6, "bprm_check_security", "executing"),
    Operation(
        7,
        "mmap_file",
        "mapping files, and executable memory; rings of io_uring, attaching shared memory",
        ("uring_allowed",),
        "mmap_file",
    ),
    Operation(8, "file_mprotect", "making memory executable", function="file_mprotect"),
    Operation(9, "task_alloc", "new processes and threads"),
    Operation(10, "task_kill", "signals", function="task_kill"),
    Operation(11, "task_fix_setuid", "changing user ids"),
    Operation(
        12,
        "ptrace_access_check",
        "memory, registers and descriptors of others",
        function="ptrace_access_check",
    ),
    Operation(13, "socket_create", "new sockets"),
    Operation(14, "socket_connect", "connecting"),
    Operation(15, "sb_mount", "mount(2)"),
    Operation(16, "bpf", "bpf(2)", function="bpf"),
    Operation(17, "kernel_read_file", "loading modules, kernels and firmware out of files"),
    Operation(18, "kernel_load_data", "the same out of memory"),
    Operation(
        101,
        "capable",
        "whatever needs a capability: every change of mounts (umount, pivot_root, open_tree, move_mount, fsopen), "
        "unshare, setns, chroot, setgroups, raising capabilities, devices by mknod, attributes trusted.* and "
        "security.*, clocks, host name, acct, quota, swap, reboot, kexec_load, iopl, ioperm, delete_module, "
        "open_by_handle_at, raw sockets, network configuration, whatever permissions of files forbid; on newer kernels "
        "new user namespaces, too. On older ones it can make one, in which it has no capability either",
        ("userns_create",),
        "capable",
    ),
    Operation(102, "inode_symlink", "symbolic links", function="inode_make"),
    Operation(103, "inode_link", "hard links", function="inode_link"),
    Operation(104, "inode_mkdir", "making folders", function="inode_make"),
    Operation(105, "inode_rmdir", "removing folders"),
    Operation(106, "inode_mknod", "FIFOs, sockets and devices in the file system", function="inode_make"),
    Operation(
        107,
        "inode_setxattr",
        "extended attributes, such as file capabilities; ACLs",
        ("inode_set_acl",),
        "inode_attribute",
        alike=True,
    ),
    Operation(108, "inode_removexattr", "removing these", ("inode_remove_acl",), "inode_attribute", alike=True),
    Operation(109, "task_fix_setgid", "changing group ids"),
    Operation(110, "key_permission", "keys", ("key_alloc",)),
    Operation(111, "ipc_permission", "messages, semaphores and shared memory of System V"),
    Operation(112, "file_receive", "descriptors from others, over sockets or from a seccomp supervisor"),
    Operation(113, "socket_bind", "binding"),
    Operation(114, "socket_listen", "listening"),
    Operation(115, "socket_accept", "accepting connections"),
    Operation(116, "socket_setsockopt", "options of sockets, such as filters"),
    Operation(117, "perf_event_open", "perf events, and probes by them"),
    Operation(118, "task_setscheduler", "scheduling classes and CPUs, its own and those of others"),
    Operation(119, "task_prlimit", "limits of others"),
    Operation(120, "path_notify", "watching files by inotify, fanotify and dnotify"),
    Operation(121, "file_fcntl", "fcntl(2): having signals sent to others (F_SETOWN, F_SETSIG), leases, locks"),
    Operation(
        122,
        "file_ioctl",
        "ioctl(2) of descriptors that it holds: devices, file systems' flags, its terminal, signals as by fcntl(2)",
        ("file_ioctl_compat",),
        "file_ioctl",
        alike=True,
    ),
)
OPERATIONS: Mapping[int, str] = {each.number: each.hook for each in ALL}
"""Names of the guarded operations by their numbers in C."""

_HELD = "what it does with descriptors that it holds already: these run at each read, write or packet of everybody"
_READS = "it learns of what lies open to it, and changes nothing; opening is refused"
_OWN = "it changes the process itself alone"
_BEHIND = "what leads there is refused"
_RECORDS = "the kernel keeps or frees a label, or tells of what is done; it is not asked for leave"
NOT_GUARDED: Mapping[str, tuple[str, ...]] = {
    _HELD: tuple(
        """file_permission file_lock file_set_fowner file_send_sigiotask
        socket_sendmsg socket_recvmsg socket_shutdown unix_may_send netlink_send mmap_backing_file tun_dev_attach
        tun_dev_attach_queue tun_dev_open""".split()
    ),
    _READS: tuple(
        """inode_permission inode_getattr inode_getxattr inode_listxattr inode_readlink inode_follow_link
        inode_getsecurity inode_listsecurity inode_file_getattr inode_get_acl sb_statfs task_getpgid task_getsid
        task_getscheduler task_getioprio capget getprocattr getselfattr socket_getsockname socket_getpeername
        socket_getsockopt socket_getpeersec_stream socket_getpeersec_dgram perf_event_read perf_event_write
        sb_show_options ismaclabel""".split()
    ),
    _OWN: tuple(
        """capset task_prctl task_setrlimit task_setpgid task_setnice task_setioprio task_movememory mmap_addr
        vm_enough_memory setprocattr setselfattr ptrace_traceme socket_socketpair uring_sqpoll uring_override_creds
        uring_cmd""".split()
    ),
    _BEHIND: tuple(
        """sb_umount sb_pivotroot sb_remount sb_kern_mount sb_set_mnt_opts sb_clone_mnt_opts sb_eat_lsm_opts
        sb_mnt_opts_compat move_mount fs_context_dup fs_context_parse_param fs_context_submount path_chroot path_chmod
        path_chown path_link path_mkdir path_mknod path_rename path_rmdir path_symlink path_truncate path_unlink
        file_truncate file_post_open settime quotactl quota_on syslog locked_down task_fix_setgroups
        kernel_module_request bpf_map bpf_prog bpf_map_create bpf_prog_load bpf_token_create bpf_token_cmd
        bpf_token_capable bprm_creds_for_exec bprm_creds_from_file inode_setsecurity
        inode_setsecctx inode_killpriv inode_need_killpriv inode_copy_up inode_copy_up_xattr inode_file_setattr
        inode_xattr_skipcap kernel_act_as kernel_create_files_as kernel_post_load_data kernel_post_read_file
        unix_stream_connect socket_post_create tun_dev_create msg_queue_associate msg_queue_msgctl shm_associate
        shm_shmctl shm_shmat sem_associate sem_semctl sem_semop msg_queue_msgsnd msg_queue_msgrcv
        msg_queue_alloc_security shm_alloc_security sem_alloc_security
        msg_msg_alloc_security binder_set_context_mgr binder_transaction binder_transfer_binder binder_transfer_file
        sctp_assoc_request sctp_bind_connect ib_pkey_access ib_endport_manage_subnet
        xfrm_policy_alloc_security xfrm_policy_clone_security xfrm_policy_delete_security xfrm_state_alloc
        xfrm_state_alloc_acquire xfrm_state_delete_security xfrm_policy_lookup watch_key""".split()
    ),
    _RECORDS: tuple(
        """audit_rule_free audit_rule_init audit_rule_known audit_rule_match backing_file_alloc backing_file_free
        bdev_alloc_security bdev_free_security bdev_setintegrity bpf_map_alloc_security bpf_map_free
        bpf_map_free_security bpf_prog_alloc_security bpf_prog_free bpf_prog_free_security bpf_token_free
        bprm_committed_creds bprm_committing_creds cred_alloc_blank cred_free cred_getlsmprop cred_getsecid
        cred_prepare cred_transfer current_getlsmprop_subj current_getsecid_subj d_instantiate dentry_create_files_as
        dentry_init_security file_alloc_security file_free_security file_release ib_alloc_security ib_free_security
        inet_conn_established inet_conn_request inet_csk_clone initramfs_populated inode_alloc_security
        inode_free_security inode_free_security_rcu inode_getlsmprop inode_getsecctx inode_getsecid inode_init_security
        inode_init_security_anon inode_invalidate_secctx inode_notifysecctx inode_post_create_tmpfile
        inode_post_remove_acl inode_post_removexattr inode_post_set_acl inode_post_setattr inode_post_setxattr
        inode_setintegrity ipc_getlsmprop ipc_getsecid kernfs_init_security key_free key_getsecurity
        key_post_create_or_update lsmprop_to_secctx mptcp_add_subflow msg_msg_free_security msg_queue_free_security
        path_post_mknod perf_event_alloc perf_event_free post_notification release_secctx req_classify_flow
        sb_add_mnt_opt sb_alloc_security sb_delete sb_free_mnt_opts sb_free_security sctp_assoc_established
        sctp_sk_clone secctx_to_secid secid_to_secctx secmark_refcount_dec secmark_refcount_inc secmark_relabel_packet
        sem_free_security shm_free_security sk_alloc_security sk_clone_security sk_free_security sk_getsecid sock_graft
        socket_sock_rcv_skb task_free task_getlsmprop_obj task_getsecid task_getsecid_obj task_getsecid_subj
        task_to_inode tun_dev_alloc_security tun_dev_free_security xfrm_decode_session xfrm_policy_free_security
        xfrm_state_free_security xfrm_state_pol_flow_match""".split()
    ),
}
"""The other hooks, by the reason why a poisoned process is not refused there."""


GUARDED: Mapping[int, str] = {
    32: "agent_signalled",
    33: "agent_traced",
    34: "link_changed",
    35: "map_opened",
    36: "kprobes_switched",
    37: "program_opened",
    38: "link_opened",
    39: "program_run",
    40: "agent_limited",
    41: "agent_slowed",
    42: "proc_written",
    43: "cgroup_written",
    44: "agent_moved",
    45: "agent_frozen",
    46: "sysrq_written",
    47: "files_changed",
    48: "mounts_changed",
    49: "map_written",
    50: "object_used",
    51: "files_frozen",
}
"""What strangers try on the agent, which the kernel refuses or, of `SEEN`, only tells of."""

SEEN = frozenset({"agent_moved", "agent_frozen", "files_frozen"})
"""What no hook refuses, or backups do, too."""
