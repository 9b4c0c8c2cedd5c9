"""Runs that the kernel left out: what a probe was to see then, it did not.

A program is left out where its CPU is in the middle of the same program or, for kprobes, of any other one or of a map's
change by bpf(2): a kernel that preempts such a change for another process lets that one pass all kprobes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..kernel.run_statistics import RunStatistics, program_statistics


@dataclass(frozen=True, slots=True)
class MissedReport:
    """Runs of one program that were left out since the last look."""

    program: str
    """Its label."""
    count: int
    total: int


class MissedRuns:
    """Counts them as the kernel does: since 5.12 (9ed9e9ba2337), and for kprobes since 6.7 (dd8657894c11).

    On kernels before these there is nothing to count by, and silence says nothing.
    """

    def __init__(
        self, programs: Mapping[str, int], statistics: Callable[[int], RunStatistics] = program_statistics
    ) -> None:
        """`programs`: descriptors of loaded programs, by label."""
        self._programs, self._statistics = dict(programs), statistics
        self._known = dict.fromkeys(programs, 0)

    @property
    def total(self) -> int:
        """All that were left out, as of the last look."""
        return sum(self._known.values())

    def now(self) -> dict[str, int]:
        """How many there are of each program so far, by label. Raises `KernelError`."""
        return {label: self._statistics(descriptor).missed for label, descriptor in self._programs.items()}

    def look(self) -> Iterator[MissedReport]:
        """Those that were left out since the last look. Raises `KernelError`."""
        for label, missed in self.now().items():
            if missed > (known := self._known[label]):
                self._known[label] = missed
                yield MissedReport(label, missed - known, missed)
