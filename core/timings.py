"""What a start takes, by phase: wall and CPU time of the agent and of its loader. `krie doctor --timings` shows it.

Phases are exclusive: while one lasts within another, the outer one's time stands still. So all of them together are the
process's time, and what no phase names is `other`.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from .kernel_files import KernelFile

IMPORTS: Final = "imports and configuration"
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the wall, and of CPU in user mode and in the kernel: so far, or in between."""

    wall_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        """The sum of both."""
        return Spent(self.wall_s + other.wall_s, self.user_s + other.user_s, self.system_s + other.system_s)

    def __sub__(self, other: Spent) -> Spent:
        """From the other one until this one."""
        return Spent(self.wall_s - other.wall_s, self.user_s - other.user_s, self.system_s - other.system_s)


@dataclass(frozen=True, slots=True)
class Phase:
    """What one process spent on one thing."""

    process: str
    """`agent` or `loader`."""
    name: str
    spent: Spent

    def to_json(self) -> dict[str, Any]:
        """For a message, or for `--json`."""
        spent = self.spent
        times = {"wall_s": spent.wall_s, "user_s": spent.user_s, "system_s": spent.system_s}
        return {"process": self.process, "phase": self.name, **{name: round(each, 6) for name, each in times.items()}}

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Phase:
        """What `to_json` made."""
        spent = Spent(message["wall_s"], message["user_s"], message["system_s"])
        return cls(message["process"], message["phase"], spent)


def so_far() -> Spent:
    """What this process, with all its threads, spent until now; of the wall time only differences mean something."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Spent(time.monotonic(), usage.ru_utime, usage.ru_stime)


def since_exec() -> Spent:
    """What this process spent since it was started; the wall time is exact to a tick, of 10 ms."""
    fields = KernelFile("/proc/self/stat").read_text().rpartition(")")[2].split()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Spent(max(0.0, age_s), usage.ru_utime, usage.ru_stime)


class Timings:
    """Records the phases of this process; takes those of others."""

    def __init__(self, process: str, before: Spent | None = None, read: Callable[[], Spent] = so_far) -> None:
        """Start now. `before`: what the process spent before, if that counts; `since_exec()` unless it was forked."""
        self._process, self._read = process, read
        self._names: list[str] = [OTHER]
        self._spent: dict[str, Spent] = {} if before is None else {IMPORTS: before}
        self._others: list[Phase] = []
        self._goes_on = True
        self._mark = read()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens meanwhile belongs to this phase; a name that comes again goes on with it."""
        self._credit()
        self._names.append(name)
        try:
            yield
        finally:
            self._credit()
            self._names.pop()

    def merge(self, phases: Iterable[Mapping[str, Any]]) -> None:
        """Take another process's phases, as they came in its message."""
        self._others += map(Phase.from_json, phases)

    def phases(self) -> tuple[Phase, ...]:
        """Own ones until now, in the order in which they began, and then the others'."""
        self._credit()
        return (*(Phase(self._process, name, spent) for name, spent in self._spent.items()), *self._others)

    def stop(self) -> None:
        """What happens from now on belongs to nothing: the start is over."""
        self._credit()
        self._goes_on = False

    def to_json(self) -> list[dict[str, Any]]:
        """All phases, as `merge` takes them."""
        return [each.to_json() for each in self.phases()]

    def _credit(self) -> None:
        if not self._goes_on:
            return
        now, name = self._read(), self._names[-1]
        self._spent[name] = self._spent.get(name, Spent()) + (now - self._mark)
        self._mark = now
