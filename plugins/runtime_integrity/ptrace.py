"""Control over other processes: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import (
    U32,
    U64,
    Alternative,
    AttachType,
    Bool,
    CannotProve,
    Choice,
    Doc,
    Event,
    Inline,
    KernelFile,
    Pad4,
    Probe,
    Program,
    own_fields,
    system_call,
)

from .topic import NATIVE_ONLY, PREFIX, REFUSES, Topic, called, hooked, is_set

OPERATIONS = {
    1: "attach",
    2: "seize",
    3: "traceme",
    4: "access",
    5: "vm_read",
    6: "vm_write",
    7: "procfs",
    8: "procfs_read",
}
_SYS_PTRACE, _SYS_VM_READ, _SYS_VM_WRITE = 101, 310, 311  # x86-64
_PTRACE_TRACEME, _PTRACE_ATTACH = 0, 16
_NO_ATTACH = KernelFile("/proc/sys/kernel/yama/ptrace_scope")


@dataclass(frozen=True, slots=True)
class Ptrace(Event):
    """One process obtains control over another, or reads or writes its memory.

    Requests on a process that is traced already (a debugger's thousands of PEEK, POKE and CONT) are left out: the
    control was obtained before. So are reads of /proc/TGID/stack, syscall and personality, for which the kernel asks
    for the right to attach, too: they show something, and give nobody any power. But of a thread with rings of io_uring
    it is not known what it does, and such a read counts as `procfs`.
    """

    KIND: ClassVar[int] = 0x0101
    NAME: ClassVar[str] = "runtime_integrity.ptrace"
    VERSION: ClassVar[int] = 2
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {"target": ("target_tgid", "target_start_time")}
    ALIKE: ClassVar[tuple[str, ...]] = ("target",)

    target_start_time: Annotated[U64, Doc("start of the traced process, ns since boot")]
    target_tgid: Annotated[U32, Inline(), Doc("process that is traced, read or written")]
    target_tid: Annotated[U32, Doc("its thread")]
    target_uid: Annotated[U32, Doc("real user of that thread")]
    request: Annotated[U32, Doc("first argument of ptrace(2); 0 where the probe does not see it")]
    operation: Annotated[
        str,
        Choice("B", OPERATIONS),
        Inline(),
        Doc(
            "`access`: by a system call that the probe does not see; `procfs`: through /proc/TGID/mem, `procfs_read` "
            "where that is surely opened for reading only, which is not known of threads with rings of io_uring"
        ),
    ]
    compat: Annotated[Bool, Inline(), Doc("32-bit system call")]
    target_known: Annotated[Bool, Inline(), Doc("the target exists and its fields hold real values")]
    other_user: Annotated[
        Bool,
        Inline(),
        Doc(
            "`target_uid` is not the real user of the process; false for no target, and for one in a user namespace "
            "that the process made, or is privileged in"
        ),
    ]
    pad: Pad4 = b""


def topic() -> Topic:
    """Control over other processes."""
    return Topic(Ptrace, (_probe(),), ("ptrace.bpf.c",))


def _probe() -> Probe:
    def at_hook(attach: AttachType) -> Alternative:
        return hooked(
            attach,
            {"ptrace_access_check": ("access",), "ptrace_traceme": ("traceme",)},
            fields=own_fields(Ptrace) - {"request"},
            limits="does not know which request of ptrace(2) it was",
        )

    return Probe(
        "ptrace",
        Ptrace,
        (
            at_hook(AttachType.LSM),
            at_hook(AttachType.FMOD_RET),
            Alternative(
                str(AttachType.KPROBE_OVERRIDE),
                tuple(
                    Program(AttachType.KPROBE_OVERRIDE, f"__x64_sys_{call}", f"{PREFIX}_{name}_override")
                    for call, name in (
                        ("ptrace", "ptrace"),
                        ("process_vm_readv", "readv"),
                        ("process_vm_writev", "writev"),
                    )
                ),
                fields=own_fields(Ptrace),
                can=REFUSES,
                limits=f"{NATIVE_ONLY}; nor access through /proc/TGID/mem",
            ),
            at_hook(AttachType.KPROBE),
            called(
                {"ptrace": "ptrace", "process_vm_readv": "readv", "process_vm_writev": "writev"},
                fields=own_fields(Ptrace),
                limits="sees the system calls, not access through /proc/TGID/mem",
            ),
        ),
        _canary,
    )


def _canary() -> None:
    """A child of the agent's asks to be traced, and the agent opens and touches the child's memory.

    What it reads and writes there lies at an address that nobody has. It also asks for a thread that nobody has, which
    only a program at the system call's entry sees. Raises `OSError`, `CannotProve`.
    """
    system_call(_SYS_PTRACE, _PTRACE_ATTACH, 0, 0, 0)
    ready, tell = os.pipe2(os.O_CLOEXEC)
    wait, done = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(done)
            system_call(_SYS_PTRACE, _PTRACE_TRACEME, 0, 0, 0)
            os.write(tell, b"\0")
            os.read(wait, 1)
        finally:
            os._exit(0)
    try:
        os.close(tell)
        os.close(wait)
        os.read(ready, 1)
        nowhere = ctypes.create_string_buffer(struct.pack("=QQ", 0, 1))
        for call in (_SYS_VM_READ, _SYS_VM_WRITE):
            system_call(call, child, nowhere, 1, nowhere, 1, 0)
        with suppress(PermissionError), open(f"/proc/{child}/mem", "rb"):
            pass
    finally:
        os.close(done)
        os.close(ready)
        os.waitpid(child, 0)
    if is_set(_NO_ATTACH, "3"):
        raise CannotProve(f"{_NO_ATTACH} is 3, and the kernel lets nobody trace")
