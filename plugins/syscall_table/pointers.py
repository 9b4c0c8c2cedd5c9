"""Tables of functions that attackers take where system calls themselves are hard to take."""

from __future__ import annotations

SHIPPED = (
    # What lists processes, modules, connections and files shows.
    "proc_root_operations",
    "proc_root_inode_operations",
    "proc_tgid_base_operations",
    "proc_tgid_base_inode_operations",
    "proc_dir_operations",
    "proc_reg_file_ops",
    "proc_modules_operations",
    "modules_proc_ops",
    "modules_op",
    "kallsyms_op",
    "mounts_op",
    "proc_pid_maps_op",
    "tcp4_seq_ops",
    "tcp6_seq_ops",
    "udp_seq_ops",
    "udp6_seq_ops",
    "raw_seq_ops",
    "unix_seq_ops",
    "packet_seq_ops",
    # Directories and files of file systems that are part of the kernel.
    "simple_dir_operations",
    "dcache_dir_ops",
    "shmem_file_operations",
    "sysfs_file_kfops_rw",
    "kernfs_dir_fops",
    "kernfs_file_fops",
    "ext4_dir_operations",
    "ext4_file_operations",
    "xfs_dir_file_operations",
    "xfs_file_operations",
    "btrfs_dir_file_operations",
    # The network, and devices that everybody reads.
    "inet_stream_ops",
    "inet_dgram_ops",
    "inet6_stream_ops",
    "inet6_dgram_ops",
    "tcp_prot",
    "tcpv6_prot",
    "udp_prot",
    "udpv6_prot",
    "kmsg_fops",
    "random_fops",
    "urandom_fops",
    "null_fops",
    "proc_kmsg_operations",
    "tty_fops",
    "ptmx_fops",
    "elf_format",
    "script_format",
)
"""Variables of the kernel: what in them leads to its own code at start, must lead there for good."""
MOST_BYTES = 512
"""Of one of them; the longest, `struct proto`, has some 400."""
