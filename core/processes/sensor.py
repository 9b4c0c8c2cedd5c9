"""The core's own sensor: fork, exec and exit of every process, which feed the process table
(`krie.processes.table`)."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, ClassVar

from ..events.event import Event
from ..events.layout import Doc
from ..events.wire import U16, U32, U64, Bool, Bytes
from ..kernel.program import AttachType, Program
from ..libc import libc
from ..plugin.probe import Alternative, Probe, Sensor
from .binding import ProcessRunning

PATH_BYTES = 768
_PROCESS_VM_WRITEV = 311  # x86-64


@dataclass(frozen=True, slots=True)
class ProcessFork(Event):
    """A process was made; the header is that of the process that made it."""

    KIND: ClassVar[int] = 0x0001
    NAME: ClassVar[str] = "process.fork"
    BACKGROUND: ClassVar[bool] = True

    child_start_time: Annotated[U64, Doc("start of the new process, ns since boot")]
    child_parent_start_time: Annotated[
        U64, Doc("start of its parent, which with CLONE_PARENT is not the process that made it")
    ]
    child_tgid: Annotated[U32, Doc("the new process")]
    child_parent_tgid: Annotated[U32, Doc("its parent")]


@dataclass(frozen=True, slots=True)
class ProcessExec(Event):
    """A process began to run another executable; the header has its device, inode and generation."""

    KIND: ClassVar[int] = 0x0002
    NAME: ClassVar[str] = "process.exec"
    BACKGROUND: ClassVar[bool] = True

    components: Annotated[bytes, Bytes(PATH_BYTES), Doc("the path's components, last first, each ends with a NUL")]
    length: Annotated[U32, Doc("bytes used of `components`")]
    truncated: Annotated[Bool, Doc("the path goes on above the last component")]
    deleted: Annotated[Bool, Doc("the file has no name any more")]
    influence: Annotated[U16, Doc("what had influenced the process before: bits of `INFLUENCE`")]


@dataclass(frozen=True, slots=True)
class ProcessExit(Event):
    """The last thread of a process ended."""

    KIND: ClassVar[int] = 0x0003
    NAME: ClassVar[str] = "process.exit"
    BACKGROUND: ClassVar[bool] = True


def canary() -> None:
    """Fork, exec and exit: one short child. Raises `OSError`."""
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def _influence() -> Probe:
    """Who changes a process from outside: see `bpf/binding.bpf.c`. Only changes count, and none that was refused."""
    places = (("arch_ptrace", "ptrace"), ("access_remote_vm", "access"), ("pin_user_pages_remote", "pin"))

    def programs(attach: AttachType) -> tuple[Program, ...]:
        own = tuple(
            Program(attach, target, f"process_{name}_{attach}", proven=name != "ptrace") for target, name in places
        )
        compat = Program(
            attach, "compat_arch_ptrace", f"process_ptrace_{attach}", proven=False, optional=True, argument=1
        )
        return (*own, compat)

    ways = (Alternative(str(each), programs(each)) for each in (AttachType.FENTRY, AttachType.KPROBE))
    return Probe("influence", None, tuple(ways), _write_to_own_memory, optional=True)


def _write_to_own_memory() -> None:
    """By the ways that lead to the memory of others. Raises `OSError`."""
    byte = ctypes.create_string_buffer(1)
    address = ctypes.addressof(byte)
    vector = (ctypes.c_size_t * 2)(address, 1)
    libc.syscall(_PROCESS_VM_WRITEV, os.getpid(), vector, 1, vector, 1, ctypes.c_ulong(0))
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, b"\0", address)
    finally:
        os.close(memory)


def process_sensor() -> Sensor:
    """The sensor; an agent cannot do without it."""

    def probe(name: str, event: type[Event]) -> Probe:
        program = Program(AttachType.RAW_TRACEPOINT, f"sched_process_{name}", f"process_{name}")
        return Probe(name, event, (Alternative("raw_tracepoint", (program,)),), canary, required=True)

    return Sensor(
        name="process",
        version="1",
        probes=(probe("fork", ProcessFork), probe("exec", ProcessExec), probe("exit", ProcessExit), _influence()),
        events=(ProcessFork, ProcessExec, ProcessExit),
        sources=tuple(map(files("krie.bpf").joinpath, ("binding.bpf.c", "process.bpf.c"))),
        policies=files("krie.policies").joinpath("agent"),
        defines={"PROCESS_PATH_BYTES": PATH_BYTES},
        shared=(ProcessRunning,),
    )
