"""The core's guard sensor: further hooks at which strangers are refused what would stop, slow or open the agent; and
tracepoints for what no hook refuses, which say who did it.

Its C is `bpf/guard.bpf.c` and `bpf/heart.bpf.c`. What it shares with containment (whose programs sit at the hooks that
both need) is `bpf/agents_own.bpf.c` and `bpf/objects.bpf.c`. It is loaded where something enforces.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, ClassVar

from ..events.layout import Doc
from ..events.shared import Shared
from ..events.wire import U64
from ..kernel import bpf
from ..kernel.program import AttachType, Program
from ..libc import libc
from ..plugin.probe import Alternative, CannotProve, Enforcement, Probe, Sensor
from ..plugin.report import ProbeReport
from ..processes.sensor import canary as a_child
from .containment import containment_sensor, files_canary, mount_canary
from .harmless import CANARIES

NAME = "guard"
BEAT = f"{NAME}_beat"
"""The program that the agent runs to say that it lives; its map is `guard_heart`."""
BEAT_INTERVAL_S = 1.0
"""How often it does."""
_SILENT_NS = int(2 * BEAT_INTERVAL_S * 1e9)
"""For so long nobody asks why it does not."""
_LOOK_NS = 250_000_000
"""How often each CPU looks whether the agent is silent."""
_SYS = {"move_pages": 279, "ioprio_get": 252, "ioprio_set": 251, "move_mount": 429, "pivot_root": 155}  # x86-64
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_SHIFT = 1, 13  # of no class, kernels before 5.18 tell a level, and take none
_MNT_EXPIRE, _AT_FDCWD = 4, -100
_EXIT = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # return 0


@dataclass(frozen=True, slots=True)
class Beats(Shared):
    """The agent's beats, and what the timer saw of it between them."""

    C_NAME: ClassVar[str] = "guard_heart"
    last: Annotated[U64, Doc("the beat, ns since boot; 0: none yet")]
    task: Annotated[U64, Doc("its main thread")]
    looked: Annotated[U64, Doc("when the timer last looked at a silent agent")]
    stopped: Annotated[U64, Doc("for how long it saw what, ns")]
    frozen: U64
    starved: U64
    waited: U64


def guard_sensor() -> Sensor:
    """A probe for each hook, one for each tracepoint, and one for the timer."""
    hooks = tuple(_hook(name, canary) for name, canary in _CANARIES.items())
    seen = (
        _unproven("cgroup_attach_task", AttachType.RAW_TRACEPOINT, "cgroup_attach_task"),
        _unproven("cgroup_freeze", AttachType.RAW_TRACEPOINT, "cgroup_freeze"),
        _unproven("silence", AttachType.PERF_EVENT, str(_LOOK_NS)),
    )
    sources = tuple(map(files("krie.bpf").joinpath, ("guard.bpf.c", "heart.bpf.c")))
    return Sensor(NAME, "1", (*hooks, *seen), sources=sources, defines={"GUARD_SILENT_NS": _SILENT_NS}, shared=(Beats,))


def enforcing_sensors() -> tuple[Sensor, Sensor]:
    """The core's sensors that are loaded where something enforces, and compiled everywhere."""
    return containment_sensor(), guard_sensor()


def _hook(name: str, canary: Callable[[], None]) -> Probe:
    ways = ((AttachType.LSM, name), (AttachType.FMOD_RET, f"security_{name}"))
    can = frozenset({Enforcement.REFUSE})
    alternatives = (Alternative(str(way), (Program(way, target, f"{NAME}_{name}"),), can=can) for way, target in ways)
    return Probe(name, None, tuple(alternatives), canary)


def _unproven(name: str, attach: AttachType, target: str) -> Probe:
    """Nothing harmless makes it run: the agent is neither moved nor frozen to try, and a clock needs no cause."""
    program = Program(attach, target, f"{NAME}_{name}", proven=False)
    return Probe(name, None, (Alternative(str(attach), (program,)),), a_child)


def missing(reports: Iterable[ProbeReport]) -> list[ProbeReport]:
    """The hooks and tracepoints that do not work on this machine."""
    return [each for each in reports if each.plugin == NAME and each.state in ("missing", "silent")]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))


def _nice() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))


def _io_priority() -> None:
    now = libc.syscall(_SYS["ioprio_get"], _IOPRIO_WHO_PROCESS, 0)
    if now < 0 or libc.syscall(_SYS["ioprio_set"], _IOPRIO_WHO_PROCESS, 0, now if now >> _IOPRIO_CLASS_SHIFT else 0):
        raise OSError(ctypes.get_errno(), "ioprio_set")


def _memory() -> None:
    """Move none of our own pages to another node."""
    if libc.syscall(_SYS["move_pages"], os.getpid(), ctypes.c_ulong(0), None, None, None, 0):
        if ctypes.get_errno() == errno.ENOSYS:
            raise CannotProve("this kernel knows no memory nodes")
        raise OSError(ctypes.get_errno(), "move_pages")


def _signal_of_a_file() -> None:
    """A pipe of our own tells us, by a signal that nobody heeds, that it can be read."""
    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.fcntl(out, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(out, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(out, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(into, b".")
    finally:
        os.close(out)
        os.close(into)


def _map() -> None:
    os.close(bpf.map_create(bpf.MapType.ARRAY, 4, 8, 1, "krie_try"))


def _program() -> None:
    os.close(bpf.prog_load(bpf.ProgramSpec("krie_try", bpf.ProgType.RAW_TRACEPOINT), _EXIT))


def _unmount() -> None:
    """Ask for our root to go once it is idle, which is refused for our root."""
    libc.umount2(b"/", _MNT_EXPIRE)


def _move_mount() -> None:
    """Move what is not a mount."""
    libc.syscall(_SYS["move_mount"], _AT_FDCWD, b"/proc/self", _AT_FDCWD, b"/proc/self", 0)


def _pivot() -> None:
    """Make that our root."""
    libc.syscall(_SYS["pivot_root"], b"/proc/self", b"/proc/self")


_CANARIES: Mapping[str, Callable[[], None]] = {
    "task_setrlimit": _limit,
    "task_setnice": _nice,
    "task_setioprio": _io_priority,
    "task_setscheduler": CANARIES["task_setscheduler"],
    "task_movememory": _memory,
    "file_send_sigiotask": _signal_of_a_file,
    "bpf_map": _map,
    "bpf_prog": _program,
    "inode_unlink": files_canary,
    "inode_rmdir": CANARIES["inode_rmdir"],
    "inode_rename": files_canary,
    "sb_umount": _unmount,
    "sb_mount": mount_canary,
    "move_mount": _move_mount,
    "sb_pivotroot": _pivot,
}
"""By hook, a harmless operation of the agent's own."""
