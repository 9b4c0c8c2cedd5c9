"""How a running agent stands, and what administrators ask of it: the answers to `krie status`, `doctor` and `clear`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..plugin.manager import Plugins
from ..processes.peer import Peer
from ..version import version
from .bus import Bus
from .enforcement import Enforcing
from .health import Losses, ProbeHealth
from .load_facts import LoadFacts
from .missed import MissedRuns

_WINDOW_S = 10.0


class Status:
    """Collects from where things are known; remembers only how many events there were recently."""

    def __init__(
        self,
        facts: LoadFacts,
        plugins: Plugins,
        probes: ProbeHealth,
        bus: Bus,
        losses: Losses,
        missed: MissedRuns,
        enforcing: Enforcing,
        policy: Callable[[], Mapping[str, Any]],
        backlog: Callable[[], bool],
        diagnosis: Callable[[], dict[str, Any]],
        evicted: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`policy`: what is to be told of it; `backlog`: whether records are known to wait in the ring; `diagnosis`:
        what `krie doctor` tells; `evicted`: live processes that the process table had to forget."""
        self._facts, self._plugins, self._probes = facts, plugins, probes
        self._bus, self._losses, self._missed, self._enforcing = bus, losses, missed, enforcing
        self._policy, self._backlog, self._diagnosis, self._evicted = policy, backlog, diagnosis, evicted
        self._clock = clock
        self._started = clock()
        self._seen: deque[tuple[float, int]] = deque([(self._started, 0)])

    def note(self) -> None:
        """Once a second: how many events there were by now."""
        now = self._clock()
        self._seen.append((now, self._bus.judged))
        while now - self._seen[1][0] > _WINDOW_S:
            self._seen.popleft()

    def answer(self, request: dict[str, Any], by: Peer) -> dict[str, Any]:
        """Serve one request of an administrator. Raises `ValueError` for what makes no sense."""
        token = str(request.get("token", ""))
        match request:
            case {"ask": "status"}:
                return self.to_json()
            case {"ask": "doctor"}:
                return self._diagnosis()
            case {"ask": "clear", "tgid": int(tgid)}:
                return self._enforcing.clearing.clear(tgid, None, by, token)
            case {"ask": "clear", "rule": str(rule)}:
                return self._enforcing.clearing.clear(None, rule, by, token)
            case {"ask": "clear", "all": True}:
                return self._enforcing.clearing.clear(None, None, by, token)
        raise ValueError("ask for status, for doctor, or for clear with a tgid, a rule, or all")

    def to_json(self) -> dict[str, Any]:
        """For `krie status --json`."""
        (first, before), now = self._seen[0], self._clock()
        return {
            "tgid": os.getpid(),
            "version": version(),
            "programs": self._facts.programs,
            "up_s": int(now - self._started),
            "events": self._bus.judged,
            "events_per_s": round((self._bus.judged - before) / max(now - first, 1.0), 1),
            "backlog": self._backlog(),
            "important_left_out": self._bus.left_out,
            "lost": self._losses.total,
            "missed": self._missed.total,
            "evicted": self._evicted(),
            **self._policy(),
            "probes": [
                {"name": each.name, "state": each.state, "by": each.alternative.name if each.alternative else None}
                for each in self._probes.reports
            ],
            "degraded": dict(self._plugins.degraded),
            "timings": self._facts.timings.to_json(),
            **self._enforcing.status(),
        }
