"""Tables of functions that attackers take where system calls themselves are hard to take."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .events import POINTER
from .explain import MODULES_RANGE
from .kallsyms import Kallsyms
from .pieces import Piece, cut

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
CONSTANT = ("__start_rodata", "__end_rodata", "__start_ro_after_init", "__end_ro_after_init")
"""Symbols between which the kernel's constant data lie, but for those between the last two."""
_ALLOCATED = range(0xFFFF_8000_0000_0000, 0xFFFF_FF00_0000_0000)
"""x86-64: memory that is allocated. Neither the kernel's image nor modules lie there."""
_WORD = 8


@dataclass(frozen=True, slots=True)
class Pointers:
    """The pointers to functions of variables of which nothing else is known than their name."""

    symbols: Kallsyms
    """Of the kernel, which knows `CONSTANT`."""
    text: range
    """The kernel's own code."""
    modules: Collection[range]
    """Where those lie that are listed."""

    def pieces(self, name: str, start: int, content: bytes) -> Iterator[Piece]:
        """What a look compares of a variable: what leads to the kernel's code, or astray."""
        for part in cut(range(start, start + len(content))):
            first = part.start - start
            words = content[first : first + len(part)]
            strays = tuple(self.strays(part.start, words))
            others = tuple(
                range(_WORD * index, _WORD * index + _WORD)
                for index, (value,) in enumerate(struct.iter_unpack("=Q", words))
                if value not in self.text and index not in strays
            )
            if _WORD * len(others) < len(words):
                yield Piece(POINTER, part.start, words, ignored=others, wrong=strays, name=name, offset=first)

    def strays(self, address: int, content: bytes) -> Iterator[int]:
        """Indices of words that lead to nobody's code.

        What is constant was made when the kernel was built, and leads to the kernel itself. In what is not, there may
        be data of modules (the neighbours in a list), and of memory that is allocated.
        """
        constant = self._is_constant(address)
        for index, (value,) in enumerate(struct.iter_unpack("=Q", content)):
            if value in MODULES_RANGE:
                if constant or not self.is_listed(value):
                    yield index
            elif constant and value in _ALLOCATED:
                yield index

    def _is_constant(self, address: int) -> bool:
        begin, end, written, fixed = map(self.symbols.address, CONSTANT)
        return begin <= address < end and not written <= address < fixed

    def is_listed(self, address: int) -> bool:
        """Whether it lies in a module that is listed, or in code of BPF and the like."""
        return any(address in each for each in self.modules) or self.symbols.has_module_near(address)
