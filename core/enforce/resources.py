"""What others can change of this process from outside: limits, priorities, CPUs, how soon it is killed for memory.

Where no hook refuses that, or while the guard is off, it is put right within a second. Each finding is the name of an
attempt of `krie.guarded`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from ..events.enforcement import LIMITS, OOM_SCORE, PRIORITY
from ..kernel_files import AnyFile, KernelFile

_KINDS = tuple(sorted({getattr(resource, each) for each in dir(resource) if each.startswith("RLIMIT_")}))
_OOM = KernelFile("/proc/self/oom_score_adj")
_ONLINE = KernelFile("/sys/devices/system/cpu/online")
_Scheduling = tuple[int, int, int, frozenset[int]]


class Resources:
    """What this process was given at its start, which it keeps. What was raised since is kept, too."""

    def __init__(
        self,
        limit: Callable[[int], tuple[int, int]] = resource.getrlimit,
        set_limit: Callable[[int, tuple[int, int]], object] = resource.setrlimit,
        oom: AnyFile = _OOM,
    ) -> None:
        """Look once."""
        self._limit, self._set_limit, self._oom_file = limit, set_limit, oom
        self._limits: Mapping[int, tuple[int, int]] = {each: limit(each) for each in _KINDS}
        self._scheduling = _scheduling()
        self._oom = self._oom_score()

    def look(self) -> Iterator[str]:
        """Put right what is less than it was; the attempts that this undid, or that could not be undone."""
        if self._lowered():
            yield LIMITS
        if (now := _scheduling()) != self._scheduling:
            if _worse(now, self._scheduling, _online()):
                with suppress(OSError):
                    _restore(self._scheduling)
                yield PRIORITY
            self._scheduling = _scheduling()
        score = self._oom_score()
        if score is not None and self._oom is not None and score > self._oom:
            with suppress(OSError):
                self._oom_file.write_bytes(b"%d\n" % self._oom)
            yield OOM_SCORE
            score = self._oom_score()
        self._oom = score

    def _lowered(self) -> bool:
        now = {each: self._limit(each) for each in _KINDS}
        lower = [each for each, limits in self._limits.items() if any(map(_less, now[each], limits))]
        for each in lower:
            self._raise(each, self._limits[each], now[each])
        self._limits = {each: self._limit(each) for each in _KINDS}
        return bool(lower)

    def _raise(self, kind: int, before: tuple[int, int], now: tuple[int, int]) -> None:
        """As far as we may: what is missing then is told as trouble."""
        soft = now[1] if _less(now[1], before[0]) else before[0]
        for limits in (before, (soft, now[1])):
            try:
                self._set_limit(kind, limits)
            except (OSError, ValueError):  # it takes CAP_SYS_RESOURCE to raise the second one
                continue
            return

    def _oom_score(self) -> int | None:
        try:
            return int(self._oom_file.read_text())
        except (OSError, ValueError):
            return None


def _less(one: int, other: int) -> bool:
    return one != other and one != resource.RLIM_INFINITY and (other == resource.RLIM_INFINITY or one < other)


def _scheduling() -> _Scheduling:
    """Policy, priority, nice value and CPUs of the main thread."""
    tid = os.getpid()
    return (
        os.sched_getscheduler(tid),
        os.sched_getparam(tid).sched_priority,
        os.getpriority(os.PRIO_PROCESS, tid),
        frozenset(os.sched_getaffinity(tid)),
    )


def _worse(now: _Scheduling, before: _Scheduling, online: frozenset[int]) -> bool:
    """A CPU that was switched off was taken from everybody, and is no harm to us."""
    return now[0] != before[0] or now[1] < before[1] or now[2] > before[2] or bool((before[3] - now[3]) & online)


def _online() -> frozenset[int]:
    """CPUs that can be used, of a list such as `0-3,5`."""
    ranges = (each.partition("-") for each in _ONLINE.read_text().split(","))
    return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))


def _restore(before: _Scheduling) -> None:
    tid = os.getpid()
    os.sched_setscheduler(tid, before[0], os.sched_param(before[1]))
    os.setpriority(os.PRIO_PROCESS, tid, before[2])
    os.sched_setaffinity(tid, before[3])
