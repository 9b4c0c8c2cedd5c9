"""The core's containment sensor: what a poisoned process can no longer do, and what nobody may do to the agent.

Its C is `bpf/agents_own.bpf.c`, `bpf/objects.bpf.c`, `bpf/containment.bpf.c` and `bpf/inheritance.bpf.c`;
`krie.enforce.guard_sensor` has more hooks. It is loaded only where something enforces, since it sits on paths that
every process takes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from ..events.identity import Key
from ..events.operations import ALL, ANY, GUARDED, OPERATIONS, Operation, function_of
from ..events.shared import Shared
from ..events.wire import U32, U64, Pad4
from ..kernel.maps import Map
from ..kernel.program import AttachType, Program
from ..libc import libc
from ..plugin.probe import Alternative, Enforcement, Probe, Sensor
from ..plugin.report import ProbeReport
from ..processes.sensor import canary as a_child
from .harmless import CANARIES

NAME = "containment"
_SYS = {"process_vm_readv": 310, "finit_module": 313, "init_module": 175, "bpf": 321, "setuid": 105}  # x86-64
_NO_SUCH_COMMAND = 0xFFFF
_MS_REMOUNT, _MS_BIND = 32, 4096
_FURTHER = 8  # CONTAINMENT_FURTHER in C: an operation's number is told by more programs than one
_PROT_READ_EXEC = mmap.PROT_READ | mmap.PROT_EXEC


def containment_sensor() -> Sensor:
    """A probe for each guarded operation, and one that keeps the poisoned processes' children and ends."""
    probes = tuple(_probe(each, _CANARIES.get(each.hook, a_child)) for each in ALL)
    inheritance = tuple(
        Program(AttachType.RAW_TRACEPOINT, f"sched_process_{name}", f"{NAME}_{name}") for name in ("fork", "exit")
    )
    family = Probe("inheritance", None, (Alternative("raw_tracepoint", inheritance),), a_child)
    names = ("agents_own.bpf.c", "objects.bpf.c", "containment.bpf.c", "inheritance.bpf.c")
    sources = tuple(map(files("krie.bpf").joinpath, names))
    attempts = {f"CONTAINMENT_{name.upper()}": number for number, name in GUARDED.items()}
    return Sensor(NAME, "1", (*probes, family), sources=sources, defines=attempts, shared=(Refusal, RefusalCount))


def _probe(operation: Operation, canary: Callable[[], None]) -> Probe:
    # Both ways run the same C. fmod_ret needs no boot parameter; LSM is what the kernel means for this.
    def alternative(attach: AttachType, target_of: Callable[[str], str]) -> Alternative:
        first = Program(attach, target_of(operation.hook), f"{NAME}_{operation.function}", argument=operation.number)
        further = (  # that they are attached must do: what would prove them is not the same on all of these kernels
            Program(
                attach,
                target_of(hook),
                f"{NAME}_{operation.function if operation.alike else ANY}",
                optional=True,
                proven=False,
                argument=operation.number << _FURTHER | at,
            )
            for at, hook in enumerate(operation.further, 1)
        )
        return Alternative(str(attach), (first, *further), can=frozenset({Enforcement.REFUSE}))

    ways = (alternative(AttachType.LSM, str), alternative(AttachType.FMOD_RET, function_of))
    return Probe(operation.hook, None, ways, canary)


def refused_operations(reports: Iterable[ProbeReport]) -> list[ProbeReport]:
    """The probes of guarded operations that are really refused to poisoned processes on this machine."""
    own = (each for each in reports if each.plugin == NAME and each.probe.name in OPERATIONS.values())
    return [each for each in own if each.state == "alive"]


@dataclass(frozen=True, slots=True)
class Refusal(Shared):
    """A key: what somebody was refused, of guarded operations and of attempts on the agent."""

    C_NAME: ClassVar[str] = "containment_refusal"
    start_time: U64
    tgid: U32
    operation: U32


@dataclass(frozen=True, slots=True)
class RefusalCount(Shared):
    """How often since the agent last looked."""

    C_NAME: ClassVar[str] = "containment_count"
    count: U64
    rule: U32
    pad: Pad4 = b""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What one process was refused since the last look."""

    process: Key
    operation: int
    """Of `krie.events.operations` or `GUARDED`."""
    count: int
    rule: int
    """The agent's number of the rule that poisoned it; 0: none."""


def take_refusals(counts: Map) -> Iterator[Refusals]:
    """Read the map `containment_counts`, and empty it. What is refused between both is told with the next one."""
    for key, value in list(counts.items()):
        counts.remove(key)
        refused, counted = Refusal.decode(key), RefusalCount.decode(value)
        process = Key(refused.tgid, refused.start_time)
        yield Refusals(process, refused.operation, counted.count, counted.rule)


def files_canary() -> None:
    """Make, open, change, rename and remove a file."""
    with tempfile.TemporaryDirectory(prefix="krie-") as folder:
        file = Path(folder, "a")
        file.touch(0o600)
        file.chmod(0o400)
        file.rename(Path(folder, "b")).unlink()


def _executable_memory() -> None:
    """Map memory as executable, and make other memory executable."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=_PROT_READ_EXEC):
        pass
    with mmap.mmap(-1, mmap.PAGESIZE) as plain:
        buffer = ctypes.c_char.from_buffer(plain)
        libc.mprotect(ctypes.byref(buffer), ctypes.c_size_t(mmap.PAGESIZE), _PROT_READ_EXEC)
        del buffer


def _signal() -> None:
    os.kill(os.getpid(), 0)


def _identity() -> None:
    """Become whom we are."""
    libc.syscall(_SYS["setuid"], os.getuid())


def _trace() -> None:
    """Read the memory of a child, which is refused for the address."""
    wait, done = os.pipe2(os.O_CLOEXEC)
    child = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, wait, 0)])
    try:
        os.close(wait)
        vectors = ctypes.create_string_buffer(struct.pack("=QQ", 0, 1))
        libc.syscall(_SYS["process_vm_readv"], child, vectors, 1, vectors, 1, ctypes.c_ulong(0))
    finally:
        os.close(done)
        os.waitpid(child, 0)


def _sockets() -> None:
    """Connect to an address that nobody has."""
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):
        made.connect("\0krie-nobody")


def mount_canary() -> None:
    """Ask for new flags of a mount where none is."""
    libc.mount(None, b"/proc/self", None, _MS_REMOUNT | _MS_BIND, None)


def _bpf() -> None:
    attributes = ctypes.create_string_buffer(8)
    libc.syscall(_SYS["bpf"], _NO_SUCH_COMMAND, ctypes.byref(attributes), len(attributes))


def _module_file() -> None:
    """Load a file as a module whose size is not what its status says: given up before it is parsed, and not logged."""
    descriptor = os.open("/sys/kernel/uevent_seqnum", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.syscall(_SYS["finit_module"], descriptor, b"", 0)
    finally:
        os.close(descriptor)


def _module_memory() -> None:
    """Load a module out of memory that cannot be read."""
    libc.syscall(_SYS["init_module"], ctypes.c_void_p(None), ctypes.c_ulong(4096), b"")


_CANARIES: Mapping[str, Callable[[], None]] = {
    **CANARIES,
    **dict.fromkeys(("file_open", "inode_create", "inode_unlink", "inode_rename", "inode_setattr"), files_canary),
    **dict.fromkeys(("mmap_file", "file_mprotect"), _executable_memory),
    "task_kill": _signal,
    "task_fix_setuid": _identity,
    "ptrace_access_check": _trace,
    **dict.fromkeys(("socket_create", "socket_connect"), _sockets),
    "sb_mount": mount_canary,
    "bpf": _bpf,
    "kernel_read_file": _module_file,
    "kernel_load_data": _module_memory,
}
"""Harmless operations of the agent's own; those that are not here are what starting a child does."""
