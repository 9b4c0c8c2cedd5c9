"""Loading and attaching one program, each attach type in one place.

Whatever `attach` returns ends with its holder: links and perf events, never something that stays behind a SIGKILL (a
program attached to a cgroup by BPF_PROG_ATTACH or a kprobe written to tracefs would).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import struct
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import AttachError
from ..probe import AttachType, Program
from . import bpf

_SYS_PERF_EVENT_OPEN = 298  # x86-64
_PERF_TYPE_SOFTWARE, _PERF_TYPE_TRACEPOINT = 1, 2
_PERF_FLAG_FD_CLOEXEC = 8
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_libc = ctypes.CDLL(None, use_errno=True)
_KPROBE_TYPE = Path("/sys/bus/event_source/devices/kprobe/type")
_RETURN = 1
"""PERF_PROBE_CONFIG_IS_RETPROBE, what kprobe/format/retprobe says since e12f03d7031a."""
_FIRST_INTERIOR = 5
"""Below this lie the call of ftrace, and with IBT the endbr before it."""
_NO_INSTRUCTION = (errno.EILSEQ, errno.EINVAL)
"""What the kernel answers for a kprobe inside an instruction, or at one that cannot be probed."""

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

    tracefs: Path
    cgroup2: Path
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
    if type_ is AttachType.TRACEPOINT and not (places.tracefs / "events").is_dir():
        return "the kernel has no tracepoints in tracefs"
    if type_ is AttachType.CGROUP_SYSCTL and not places.cgroup2.is_dir():
        return f"this kernel has no {places.cgroup2}"
    return ""


def load(program: Program, instructions: bytes, places: Places) -> int:
    """Load the instructions for the program's target; returns the descriptor.

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
    return bpf.prog_load(bpf.ProgramSpec(program.function, type_, expected, btf_id), instructions)


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
    bpf.update(maps[program.through], bytes(4), struct.pack("=I", descriptor))


def _function(_program: Program, descriptor: int, _places: Places) -> list[int]:
    return [bpf.raw_tracepoint_open(descriptor, "")]


def _raw_tracepoint(program: Program, descriptor: int, _places: Places) -> list[int]:
    return [bpf.raw_tracepoint_open(descriptor, program.target)]


def _cgroup_sysctl(_program: Program, descriptor: int, places: Places) -> list[int]:
    root = os.open(places.cgroup2, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
    return _perf_event(int(_KPROBE_TYPE.read_text()), config, 0, symbol, place, 0, descriptor)


def kprobe_type() -> int:
    """Type of perf events that are kprobes; -1 where the kernel has none."""
    return int(_KPROBE_TYPE.read_text()) if _KPROBE_TYPE.exists() else -1


def attach_somewhere(program: Program, descriptor: int, code: range, avoided: Container[int]) -> tuple[int, int]:
    """Attach a loaded roaming program at an instruction drawn at random; returns its offset, and what holds it.

    No disassembler is needed: the kernel refuses what is no instruction's begin. `code`: addresses of the target. They
    are what is asked for: kernels before 6.2 (60443c88f3a8) go through all symbols for a name. `avoided`:
    offsets that are not to be taken. Raises `AttachError`.
    """
    interior = range(_FIRST_INTERIOR, min(len(code), program.roaming))
    offsets = [each for each in interior if each not in avoided]
    random.SystemRandom().shuffle(offsets)
    for offset in offsets:
        try:
            return offset, _kprobe_event(0, code.start + offset, descriptor)
        except OSError as error:
            if error.errno not in _NO_INSTRUCTION:
                raise AttachError(
                    f"attaching {program.function} to {program.target}+{offset}", error.errno or 0
                ) from error
    hint = "the kernel has no such function, or hides where it is" if not code else "no instruction in it can be probed"
    raise AttachError(f"attaching {program.function} inside {program.target}", errno.ENOENT, hint)


def _tracepoint(program: Program, descriptor: int, places: Places) -> list[int]:
    identity = int((places.tracefs / "events" / program.target / "id").read_text())
    return [_perf_event(_PERF_TYPE_TRACEPOINT, identity, 1, 0, 0, 0, descriptor)]


def online_cpus() -> list[int]:
    """Numbers of the CPUs that are online."""
    ranges = Path("/sys/devices/system/cpu/online").read_text().strip().split(",")
    ends = [(int(first), int(last or first)) for first, _, last in (each.partition("-") for each in ranges)]
    return [cpu for first, last in ends for cpu in range(first, last + 1)]


def _perf_clock(program: Program, descriptor: int, _places: Places) -> list[int]:
    events: list[int] = []
    try:
        for cpu in online_cpus():
            events.append(_perf_event(_PERF_TYPE_SOFTWARE, 0, int(program.target), 0, 0, cpu, descriptor))
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


def _perf_event(type_: int, config: int, period: int, config1: int, config2: int, cpu: int, program: int) -> int:
    """Open a perf event for all processes on one CPU, give it the program and enable it."""
    size = 112
    attributes = struct.pack("=IIQQQQQIIQQ", type_, size, config, period, 0, 0, 1, 0, 0, config1, config2)
    buffer = ctypes.create_string_buffer(attributes.ljust(size, b"\0"), size)
    event: int = _libc.syscall(_SYS_PERF_EVENT_OPEN, ctypes.byref(buffer), -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
    if event < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        fcntl.ioctl(event, _IOC_SET_BPF, program)
        fcntl.ioctl(event, _IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event
