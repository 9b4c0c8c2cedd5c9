"""The bpf(2) system call: every command that KRIe uses, one function each. Errors are `KernelError` with the errno."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from ..errors import KernelError, ProgramLoadError
from ..events.agreed import SECRET_ARGUMENT
from ..kernel_files import KernelFile
from ..libc import libc
from .bpf_attributes import (
    NAME_BYTES,
    Info,
    LinkCreate,
    MapCreate,
    MapElement,
    MapFreeze,
    MapInfo,
    ProgInfo,
    ProgLoad,
    RawTracepointOpen,
    TestRun,
)
from .bpf_numbers import Command as Command  # noqa: PLC0414 - `bpf.Command` to all others
from .bpf_numbers import MapType as MapType  # noqa: PLC0414
from .bpf_numbers import ProgType as ProgType  # noqa: PLC0414

_SYS_BPF = 321  # x86-64
_LOG_BYTES = 4 << 20
_LOG_LINES = 15
_INSTRUCTION_BYTES = 8
_AnInfo = TypeVar("_AnInfo", MapInfo, ProgInfo)
_Buffer = ctypes.Array[ctypes.c_char]


Attributes = ctypes.Structure | ctypes.Array[ctypes.c_char]


def call(command: Command, attributes: Attributes) -> int:
    """Make the call; return its result or -errno. The attributes receive what the kernel answers."""
    size = ctypes.c_uint(ctypes.sizeof(attributes))
    result: int = libc.syscall(_SYS_BPF, int(command), ctypes.byref(attributes), size)
    return result if result >= 0 else -ctypes.get_errno()


def checked(operation: str, command: Command, attributes: Attributes) -> int:
    """The same; raises `KernelError`, which names the operation."""
    result = call(command, attributes)
    if result < 0:
        raise KernelError(operation, -result)
    return result


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """What PROG_LOAD needs to know besides the instructions."""

    name: str
    """For people. The kernel gets its first 15 characters, unless it has a name of its own there."""
    type: ProgType
    expected_attach_type: int = 0
    attach_btf_id: int = 0
    """BTF id of the kernel function that an LSM, fentry or fmod_ret program is for."""
    kernel_name: str = ""


def prog_load(spec: ProgramSpec, instructions: bytes) -> int:
    """Load a program; returns its descriptor (close-on-exec, as all from bpf(2)).

    Raises `ProgramLoadError` with the errno and the end of the verifier's log, which is where it says what is wrong.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    asked = ProgLoad(
        prog_type=spec.type,
        insn_cnt=len(instructions) // _INSTRUCTION_BYTES,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
        prog_name=_short(spec.kernel_name or spec.name),
        expected_attach_type=spec.expected_attach_type,
        attach_btf_id=spec.attach_btf_id,
    )
    result = call(Command.PROG_LOAD, asked)
    if result < 0:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        asked.log_level, asked.log_size, asked.log_buf = 1, len(log), ctypes.addressof(log)
        call(Command.PROG_LOAD, asked)
        raise ProgramLoadError(spec.name, -result, _useful(log.value.decode(errors="replace")))
    return result


def _short(name: str) -> bytes:
    return name.encode()[: NAME_BYTES - 1]


def _useful(log: str) -> str:
    """The verifier's verdict, which is its last line, and then what it looked at before."""
    lines = [line for line in log.splitlines() if line and not line.startswith(("processed ", "verification time"))]
    return "\n".join([*lines[-1:], *lines[-_LOG_LINES:-1]])


def allow_locked_memory() -> None:
    """Lift this process's limit for maps and programs.

    Kernels before 5.11 count those of all of root's processes there (3ac1f01b43b6 ended it). Others do not care, and a
    container may refuse.
    """
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


READ_ONLY = 1 << 7
"""BPF_F_RDONLY_PROG: a map that no program writes, whoever loaded it (5.2, 591fe9888d78)."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is made of. Sizes are bytes."""

    type: int
    key_size: int
    value_size: int
    entries: int
    flags: int
    name: str


def map_create(type_: MapType, key_size: int, value_size: int, max_entries: int, name: str, *, inner: int = 0) -> int:
    """Create a map; returns its descriptor. `inner`: of a map of maps, one of the shape that all of them have."""
    return map_of_shape(MapShape(type_, key_size, value_size, max_entries, 0, name), inner=inner)


def map_of_shape(shape: MapShape, *, inner: int = 0) -> int:
    """The same from a shape."""
    asked = MapCreate(
        shape.type, shape.key_size, shape.value_size, shape.entries, shape.flags, inner, map_name=_short(shape.name)
    )
    return checked(f"creating map {shape.name}", Command.MAP_CREATE, asked)


def freeze(descriptor: int) -> None:
    """Have nobody write a map any more but programs: neither by bpf(2) nor by a mapping (5.2, 87df15de441b)."""
    checked("freezing a map", Command.MAP_FREEZE, MapFreeze(descriptor))


def ask_about(descriptor: int, info: _AnInfo) -> _AnInfo:
    """Have the kernel fill in an info about a map or a program; returns it. Raises `KernelError`."""
    asked = Info(descriptor, ctypes.sizeof(info), ctypes.addressof(info))
    checked("asking about a BPF object", Command.OBJ_GET_INFO_BY_FD, asked)
    return info


def map_id(descriptor: int) -> int:
    """The number by which anybody with the right can open the map."""
    return int(ask_about(descriptor, MapInfo()).id)


def object_name(descriptor: int) -> str:
    """What a map or a program is called; empty for a link. Raises `KernelError`."""
    kind = KernelFile(f"/proc/self/fd/{descriptor}").link()
    if kind == "anon_inode:bpf-map":
        name: bytes = ask_about(descriptor, MapInfo()).name
    elif kind == "anon_inode:bpf-prog":
        name = ask_about(descriptor, ProgInfo()).name
    else:
        return ""
    return name.decode(errors="replace")


def map_shape(descriptor: int) -> MapShape:
    """What a map is made of."""
    info = ask_about(descriptor, MapInfo())
    return MapShape(
        info.type, info.key_size, info.value_size, info.max_entries, info.map_flags, info.name.decode(errors="replace")
    )


@contextmanager
def unpreempted() -> Iterator[None]:
    """Let no ordinary process preempt this thread, if it may ask for that (CAP_SYS_NICE).

    While bpf(2) reads or changes a map, its CPU runs no program of a kprobe. A kernel that preempts it there for
    another process lets that one pass all kprobes, as if nobody watched.
    """
    before = os.sched_getscheduler(0)
    if before & ~os.SCHED_RESET_ON_FORK in (os.SCHED_FIFO, os.SCHED_RR):
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:  # where the kernel counts what is missed then, krie.missed tells it
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def _element(descriptor: int, key: _Buffer | None, value: _Buffer | None = None) -> MapElement:
    """What the buffers must outlive."""
    key_at, value_at = (0 if each is None else ctypes.addressof(each) for each in (key, value))
    return MapElement(descriptor, key_at, value_at)


def lookup(descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value under a key; None when there is none. `value_bytes` is for all possible CPUs in per-CPU maps."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_bytes)
    with unpreempted():
        result = call(Command.MAP_LOOKUP_ELEM, _element(descriptor, key_buffer, value))
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise KernelError("reading a map", -result)
    return value.raw


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set the value under a key."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    with unpreempted():
        checked("writing a map", Command.MAP_UPDATE_ELEM, _element(descriptor, key_buffer, value_buffer))


def delete(descriptor: int, key: bytes) -> bool:
    """Remove a key from a hash; False when it was not there."""
    buffer = ctypes.create_string_buffer(key, len(key))
    with unpreempted():
        result = call(Command.MAP_DELETE_ELEM, _element(descriptor, buffer))
    if result < 0 and result != -errno.ENOENT:
        raise KernelError("removing from a map", -result)
    return result == 0


def next_key(descriptor: int, key: bytes | None, key_bytes: int) -> bytes | None:
    """The key behind `key`; the first one where it is None or gone. None at the end."""
    before = ctypes.create_string_buffer(key, key_bytes) if key is not None else None
    behind = ctypes.create_string_buffer(key_bytes)
    result = call(Command.MAP_GET_NEXT_KEY, _element(descriptor, before, behind))
    if result < 0 and result != -errno.ENOENT:
        raise KernelError("walking through a map", -result)
    return behind.raw if result == 0 else None


def test_run(descriptor: int, arguments: tuple[int, ...], secret: int = 0) -> int:  # noqa: PT028 - no test
    """Run a raw tracepoint program once in this process, with `arguments` as its context (5.10, 1b4d60ec162f).

    `secret`: what programs of the agent's own ask for, behind the other arguments. Returns what the program
    returns, as a signed number.
    """
    given = struct.pack(f"={len(arguments)}Q", *arguments).ljust(8 * SECRET_ARGUMENT, b"\0")
    context = ctypes.create_string_buffer(given + struct.pack("=Q", secret), len(given) + 8)
    asked = TestRun(descriptor, ctx_size_in=len(context), ctx_in=ctypes.addressof(context))
    checked("running a program of the agent's own", Command.PROG_TEST_RUN, asked)
    return int(asked.retval)


def raw_tracepoint_open(program: int, name: str) -> int:
    """Attach a program to a raw tracepoint or, with an empty name, to the function that it was loaded for."""
    buffer = ctypes.create_string_buffer(name.encode())
    return _attached(Command.RAW_TRACEPOINT_OPEN, RawTracepointOpen(ctypes.addressof(buffer) if name else 0, program))


def link_create(program: int, target: int, attach_type: int) -> int:
    """Attach a program to a cgroup by a link, which ends with its holder (5.7, af6eea57437a)."""
    return _attached(Command.LINK_CREATE, LinkCreate(program, target, attach_type))


def _attached(command: Command, attributes: Attributes) -> int:
    if (result := call(command, attributes)) < 0:
        raise OSError(-result, os.strerror(-result))
    return result
