"""How often BPF programs ran and how long, as the kernel counts it."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from .bpf import Command, checked


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """How often a program ran and how long, since run statistics were enabled. `missed`: not run, for recursion.

    `verified`: instructions that the verifier looked at; 0 on kernels before 5.16 (aba64c7da983).
    """

    name: str
    run_ns: int
    runs: int
    missed: int
    verified: int = 0


def program_statistics(descriptor: int) -> RunStatistics:
    """Run statistics of a program; they only count while `enable_run_statistics` is held."""
    info = ctypes.create_string_buffer(232)
    attributes = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
    checked("asking for a program's statistics", Command.OBJ_GET_INFO_BY_FD, attributes)
    name = info.raw[64:80].partition(b"\0")[0].decode()
    run_ns, runs, missed, verified = struct.unpack_from("=QQQI", info.raw, 192)
    return RunStatistics(name, run_ns, runs, missed, verified)


def enable_run_statistics() -> int:
    """Let the kernel time every BPF program until the returned descriptor is closed."""
    return checked("enabling run statistics", Command.ENABLE_STATS, struct.pack("=I", 0))
