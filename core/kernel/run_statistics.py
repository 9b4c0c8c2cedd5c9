"""How often BPF programs ran and how long, as the kernel counts it."""

from __future__ import annotations

from dataclasses import dataclass

from .bpf import Command, ask_about, checked
from .bpf_attributes import EnableStats, ProgInfo


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
    info = ask_about(descriptor, ProgInfo())
    return RunStatistics(info.name.decode(), info.run_time_ns, info.run_cnt, info.recursion_misses, info.verified_insns)


def enable_run_statistics() -> int:
    """Let the kernel time every BPF program until the returned descriptor is closed."""
    return checked("enabling run statistics", Command.ENABLE_STATS, EnableStats())
