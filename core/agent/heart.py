"""The agent's heartbeat: a timer in the kernel counts its silence, and by what it was kept silent.

The map and the programs are those of `bpf/heart.bpf.c`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..enforce.guard_sensor import Beats
from ..events.numbers import ONLY
from ..kernel.maps import Map
from .presence import OWN_WAITING_S

_SECOND = 1_000_000_000
_STOPPED_NS, _LONG_NS = _SECOND // 2, int(OWN_WAITING_S) * _SECOND
"""Of what the timer saw, less is told as nothing: on a busy machine an agent waits for a processor for seconds, and for
the kernel's grace periods."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The agent was kept from running."""

    seconds: float
    """Since its last beat."""
    state: str
    """Of `krie.gap`: `stopped` by a signal or a tracer, `frozen` with its cgroup, `starved` of processors, or `held_up`
    where it waited for something itself, as for a file that somebody lets nobody open."""


class Heart:
    """Beats about once a second."""

    def __init__(self, state: Map, beat: Callable[[], object], clock: Callable[[], int] | None = None) -> None:
        """`beat` runs the program that notes a beat, and where the agent is."""
        self._state, self._beat = state, beat
        self._clock = clock or (lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def beat(self) -> Silence | None:
        """Beat; returns what kept the agent from it before. Raises `KernelError`."""
        heart = Beats.decode(self._state.get(ONLY))
        silent_ns = self._clock() - heart.last
        self._beat()
        if not heart.last:
            return None
        longest, state = max((heart.frozen, "frozen"), (heart.stopped, "stopped"))
        if longest >= _STOPPED_NS:
            return Silence(silent_ns / _SECOND, state)
        longest, state = max((heart.starved, "starved"), (heart.waited, "held_up"))
        return Silence(silent_ns / _SECOND, state) if longest >= _LONG_NS else None
