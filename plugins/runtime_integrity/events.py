"""The event types of runtime_integrity. Which of their fields hold a real value depends on the probe: `plugin.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import S64, U32, U64, Bool, Chars, Choice, Comm, Doc, Event, FlagSet, Pad3, Pad5, Pad7

from .names import ATTACH_TYPES, BPF_COMMANDS, HELPERS, PROG_TYPES

OPERATIONS = {1: "attach", 2: "seize", 3: "traceme", 4: "access", 5: "vm_read", 6: "vm_write", 7: "procfs"}


@dataclass(frozen=True, slots=True)
class Ptrace(Event):
    """One process obtains control over another, or reads or writes its memory.

    Requests on a process that is traced already (a debugger's thousands of PEEK, POKE and CONT) are left out: the
    control was obtained before.
    """

    KIND: ClassVar[int] = 0x0101
    NAME: ClassVar[str] = "runtime_integrity.ptrace"
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {"target": ("target_tgid", "target_start_time")}

    target_start_time: Annotated[U64, Doc("start of the traced process, ns since boot")]
    target_tgid: Annotated[U32, Doc("process that is traced, read or written")]
    target_tid: Annotated[U32, Doc("its thread")]
    target_uid: Annotated[U32, Doc("real user of that thread")]
    request: Annotated[U32, Doc("first argument of ptrace(2); 0 where the probe does not see it")]
    operation: Annotated[
        str,
        Choice("B", OPERATIONS),
        Doc("`access`, `procfs`: by a system call that the probe does not see, through /proc/TGID"),
    ]
    compat: Annotated[Bool, Doc("32-bit system call")]
    target_known: Annotated[Bool, Doc("the target exists and its fields hold real values")]
    pad: Pad5 = b""


@dataclass(frozen=True, slots=True)
class BpfCall(Event):
    """A bpf(2) call that changes or inspects what runs in the kernel.

    Reads and writes of map elements are left out unless the plugin's `map_access` is set.
    """

    KIND: ClassVar[int] = 0x0102
    NAME: ClassVar[str] = "runtime_integrity.bpf"

    command: Annotated[str, Choice("I", BPF_COMMANDS), Doc("what was asked for")]
    prog_type: Annotated[str, Choice("I", PROG_TYPES), Doc("prog_load: type of the program, else unspec")]
    attach_type: Annotated[
        str, Choice("I", ATTACH_TYPES), Doc("prog_load: expected attach type; cgroup_inet_ingress is 0")
    ]
    attach_btf_id: Annotated[U32, Doc("prog_load: BTF type id of the kernel function that it is meant for; 0: none")]
    insn_count: Annotated[U32, Doc("prog_load: number of instructions")]
    helpers: Annotated[
        tuple[str, ...],
        FlagSet("I", HELPERS),
        Doc("prog_load: helpers called by which it changes other programs' work"),
    ]
    name: Annotated[Comm, Doc("prog_load, map_create: name of the object, which its loader chooses")]
    attach_btf_module: Annotated[Bool, Doc("prog_load: `attach_btf_id` counts in a module's BTF")]
    attr_known: Annotated[Bool, Doc("the call's attributes could be read; if not, only `command` holds a real value")]
    attr_trusted: Annotated[
        Bool, Doc("they are the kernel's own copy, not user memory that the caller can still change")
    ]
    helpers_known: Annotated[Bool, Doc("prog_load: all instructions were read (from user memory) to find `helpers`")]
    compat: Annotated[Bool, Doc("32-bit system call")]
    pad: Pad3 = b""


@dataclass(frozen=True, slots=True)
class SysctlWrite(Event):
    """A value below /proc/sys is about to be written. The kernel may still refuse it for reasons of its own."""

    KIND: ClassVar[int] = 0x0103
    NAME: ClassVar[str] = "runtime_integrity.sysctl_write"

    new_int: Annotated[S64, Doc("the number that the new value starts with; 0 unless `new_parsed`")]
    old_int: Annotated[S64, Doc("the same of the old value; 0 unless `old_parsed`")]
    file_pos: Annotated[U64, Doc("offset of the write in the file; the kernel ignores most writes behind 0")]
    length: Annotated[U32, Doc("bytes written; 0 where `new_truncated`")]
    name: Annotated[str, Chars(128), Doc("path below /proc/sys, with slashes: kernel/kptr_restrict")]
    old: Annotated[str, Chars(64), Doc("text before the write")]
    new: Annotated[str, Chars(64), Doc("text being written")]
    name_truncated: Annotated[Bool, Doc("the name is longer than 127 bytes")]
    old_truncated: Annotated[Bool, Doc("the old value is longer than 63 bytes")]
    new_truncated: Annotated[Bool, Doc("the new value is longer than 63 bytes")]
    new_parsed: Annotated[Bool, Doc("the new value is one integer, blanks around it ignored")]
    old_parsed: Annotated[Bool, Doc("the old value is one integer, likewise")]
    pad: Pad7 = b""
