"""Loading and attaching one program, each attach type in one place.

Whatever `attach` returns ends with its holder: links and perf events, never something that stays behind a SIGKILL, as a
program attached to a cgroup by BPF_PROG_ATTACH would. Of traps a disabled kprobe stays, see `krie.kernel.traps`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import AttachError, KernelError
from ..events.numbers import ONLY, WORD
from ..kernel_files import AnyFile, KernelFile
from ..tree import Tree
from . import bpf
from .perf_event import SOFTWARE, TRACEPOINT, perf_event
from .program import AttachType, Program
from .traps import Traps

_KPROBE_TYPE = KernelFile("/sys/bus/event_source/devices/kprobe/type")
TRACEFS = KernelFile("/sys/kernel/tracing")
_RETURN = 1
"""PERF_PROBE_CONFIG_IS_RETPROBE, what kprobe/format/retprobe says since e12f03d7031a."""
_FIRST_INTERIOR = 5
"""Below this lie the call of ftrace, and with IBT the endbr before it."""
_NO_PLACE = (errno.EILSEQ, errno.EINVAL, errno.EEXIST)
"""What the kernel answers for a kprobe inside an instruction, at one that cannot be probed, or where ours is left."""

_TYPES: Mapping[AttachType, tuple[bpf.ProgType, int]] = {
    AttachType.LSM: (bpf.ProgType.LSM, 27),
    AttachType.FMOD_RET: (bpf.ProgType.TRACING, 26),
    AttachType.FENTRY: (bpf.ProgType.TRACING, 24),
    AttachType.KPROBE: (bpf.ProgType.KPROBE, 0),
    AttachType.KRETPROBE: (bpf.ProgType.KPROBE, 0),
    AttachType.KPROBE_OVERRIDE: (bpf.ProgType.KPROBE, 0),
    AttachType.TRACEPOINT: (bpf.ProgType.TRACEPOINT, 0),
    AttachType.RAW_TRACEPOINT: (bpf.ProgType.RAW_TRACEPOINT, 0),
    AttachType.SYSCALL: (bpf.ProgType.RAW_TRACEPOINT, 0),
    AttachType.CGROUP_SYSCTL: (bpf.ProgType.CGROUP_SYSCTL, 18),
    AttachType.PERF_EVENT: (bpf.ProgType.PERF_EVENT, 0),
}
"""Program type and expected attach type."""
KPROBES = frozenset(each for each, (type_, _) in _TYPES.items() if type_ is bpf.ProgType.KPROBE)
TRAMPOLINES = frozenset(
    each for each, (type_, _) in _TYPES.items() if type_ in (bpf.ProgType.LSM, bpf.ProgType.TRACING)
)
"""Those that change the kernel's text, by how they do."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where this machine keeps what attaching needs."""

    tracefs: AnyFile
    cgroup2: Tree | None
    """See `krie.kernel.mounts.cgroup2`."""
    function_id: Callable[[str], int]
    """BTF id of a kernel function; 0 when there is none of this name."""
    security_modules: frozenset[str] | None = None
    """The active security modules; None where the kernel does not say."""


def obstacle(type_: AttachType, places: Places) -> str:
    """Why programs of this type could be loaded, and yet not attached or never run; empty where nothing is known."""
    active = places.security_modules
    if type_ is AttachType.LSM and active is not None and "bpf" not in active:
        return f"bpf is not among the active security modules ({', '.join(sorted(active))}); add it to lsm= at boot"
    if type_ in KPROBES and not _KPROBE_TYPE.exists():
        return "the kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
    if type_ is AttachType.TRACEPOINT and not (places.tracefs / "events").exists():
        return "the kernel has no tracepoints in tracefs"
    if type_ is AttachType.CGROUP_SYSCTL and places.cgroup2 is None:
        return "this kernel has no cgroup v2"
    return ""


def load(program: Program, instructions: bytes, places: Places, name: str = "") -> int:
    """Load the instructions for the program's target; returns the descriptor. `name`: what the kernel calls it.

    Raises `ProgramLoadError`, `AttachError`.
    """
    type_, expected = _TYPES[program.attach]
    btf_id = 0
    if program.attach in (AttachType.LSM, AttachType.FMOD_RET, AttachType.FENTRY):
        function = f"bpf_lsm_{program.target}" if program.attach is AttachType.LSM else program.target
        btf_id = places.function_id(function)
        if not btf_id:
            hint = f"this kernel's BTF has no function {function}"
            raise AttachError(f"{program.attach} {program.target}", errno.ENOENT, hint)
    return bpf.prog_load(bpf.ProgramSpec(program.function, type_, expected, btf_id, name), instructions)


def attach(program: Program, descriptor: int, places: Places) -> list[int]:
    """Attach a loaded program; returns the descriptors that hold it. Raises `AttachError`.

    Not for `AttachType.SYSCALL`: see `krie.kernel.dispatch`.
    """
    try:
        return _ATTACH[program.attach](program, descriptor, places)
    except OSError as error:
        where = f"{program.target}+{program.offset}" if program.offset else program.target
        hint = f"this kernel has no {error.filename}" if error.filename else ""
        raise AttachError(
            f"attaching {program.function} to {program.attach} {where}", error.errno or 0, hint
        ) from error


def put(program: Program, descriptor: int, maps: Mapping[str, int]) -> None:
    """Put a loaded program where others go on to it. `maps`: descriptors by name.

    Raises `AttachError`, `KernelError`.
    """
    if program.through not in maps:
        hint = f"the C source has no map {program.through}"
        raise AttachError(f"putting {program.function} behind others", errno.ENOENT, hint)
    bpf.update(maps[program.through], ONLY, WORD.encode(descriptor))


def _function(_program: Program, descriptor: int, _places: Places) -> list[int]:
    return [bpf.raw_tracepoint_open(descriptor, "")]


def _raw_tracepoint(program: Program, descriptor: int, _places: Places) -> list[int]:
    return [bpf.raw_tracepoint_open(descriptor, program.target)]


def _cgroup_sysctl(_program: Program, descriptor: int, places: Places) -> list[int]:
    if places.cgroup2 is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "cgroup v2")
    root = places.cgroup2.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [bpf.link_create(descriptor, root, 18)]
    finally:
        os.close(root)


def _kprobe(program: Program, descriptor: int, _places: Places) -> list[int]:
    symbol = ctypes.create_string_buffer(program.target.encode())
    return [_kprobe_event(ctypes.addressof(symbol), program.offset, descriptor)]


def _kretprobe(program: Program, descriptor: int, _places: Places) -> list[int]:
    symbol = ctypes.create_string_buffer(program.target.encode())
    return [_kprobe_event(ctypes.addressof(symbol), 0, descriptor, _RETURN)]


def _kprobe_event(symbol: int, place: int, descriptor: int, config: int = 0) -> int:
    """`symbol`: pointer to a name, behind whose address `place` counts; or 0, where `place` is an address itself."""
    return perf_event(int(_KPROBE_TYPE.read_text()), config, config1=symbol, config2=place, program=descriptor)


def kprobe_type() -> int:
    """Type of perf events that are kprobes; -1 where the kernel has none."""
    return int(_KPROBE_TYPE.read_text()) if _KPROBE_TYPE.exists() else -1


def attach_somewhere(traps: Traps, program: Program, descriptor: int, code: range) -> tuple[int, int]:
    """Attach a loaded roaming program at an instruction drawn at random; returns its offset, and what holds it.

    Where none of those that are wanted is free, it is the next one behind. No disassembler is needed: the kernel
    refuses what is not an instruction's begin. `code`: addresses of the target. They are what is asked for: kernels
    before 6.2 (60443c88f3a8) go through all symbols for a name. Raises `AttachError`.
    """
    where = f"attaching {program.function} inside {program.target}"
    if not code:
        raise AttachError(where, errno.ENOENT, "the kernel has no such function, or hides where it is")
    try:
        places = traps.places(code)
    except KernelError as error:
        raise AttachError(where, error.errno, "the function's code cannot be read") from error
    # Where there is a trap now, a breakpoint stands, which is none of these.
    offsets = [each for each in places if each >= _FIRST_INTERIOR]
    wanted = [each for each in offsets if each < program.roaming]
    random.SystemRandom().shuffle(wanted)
    for offset in (*wanted, *offsets[len(wanted) :]):
        try:
            return offset, traps.attach(code.start + offset, descriptor)
        except OSError as error:
            if error.errno not in _NO_PLACE:
                place = f"attaching {program.function} to {program.target}+{offset}"
                raise AttachError(place, error.errno or 0) from error
    raise AttachError(where, errno.ENOENT, "no call or jump in it is free for a trap")


def _tracepoint(program: Program, descriptor: int, places: Places) -> list[int]:
    identity = int((places.tracefs / "events" / program.target / "id").read_text())
    return [perf_event(TRACEPOINT, identity, period=1, program=descriptor)]


def online_cpus() -> list[int]:
    """Numbers of the CPUs that are online."""
    ranges = KernelFile("/sys/devices/system/cpu/online").read_text().strip().split(",")
    ends = [(int(first), int(last or first)) for first, _, last in (each.partition("-") for each in ranges)]
    return [cpu for first, last in ends for cpu in range(first, last + 1)]


def _perf_clock(program: Program, descriptor: int, _places: Places) -> list[int]:
    events: list[int] = []
    try:
        for cpu in online_cpus():
            events.append(perf_event(SOFTWARE, 0, period=int(program.target), cpu=cpu, program=descriptor))
    except OSError:
        for event in events:
            os.close(event)
        raise
    return events


_ATTACH: Mapping[AttachType, Callable[[Program, int, Places], list[int]]] = {
    AttachType.LSM: _function,
    AttachType.FMOD_RET: _function,
    AttachType.FENTRY: _function,
    AttachType.KPROBE: _kprobe,
    AttachType.KRETPROBE: _kretprobe,
    AttachType.KPROBE_OVERRIDE: _kprobe,
    AttachType.TRACEPOINT: _tracepoint,
    AttachType.RAW_TRACEPOINT: _raw_tracepoint,
    AttachType.CGROUP_SYSCTL: _cgroup_sysctl,
    AttachType.PERF_EVENT: _perf_clock,
}
