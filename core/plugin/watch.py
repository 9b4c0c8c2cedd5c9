"""What surrounds each call of a plugin's function in the agent.

It shares the agent's process and its only thread, so: a call that takes too long is interrupted, signals are handled as
they were before it, and a process that it forked does not return from it as a second agent. Against a plugin that means
to end the agent nothing helps but not to install it: see docs/explanation/plugins.md.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from ..output import complain

SLOW_S = 0.2
"""Longest time for a call for one event: others wait meanwhile. More counts as a failure."""
SLOW_PART_S, PART_OF_S = 30.0, 60.0
"""And of so long a time slow calls may take so much, however many quick ones lie between."""
_EACH_EVENT = frozenset({"krie_enrich", "krie_decided"})
_INTERRUPTED_AFTER_S = {"krie_enrich": 5.0, "krie_decided": 5.0, "krie_restore": 10.0, "krie_poll": 30.0}
_OTHERS_INTERRUPTED_AFTER_S = 600.0
"""Baselines and scans: where everything is emulated they take minutes."""
_LOOKS_EVERY_S = 1.0


class MisbehavedError(Exception):
    """A plugin's function returned, and did what it must not. The text says what."""

    def __init__(self, what: str, *, for_good: bool = False) -> None:
        """`for_good`: the function is not to be called again."""
        super().__init__(what)
        self.for_good = for_good


class OverdueError(BaseException):
    """Raised within a plugin's function that takes too long; no `except Exception` of it keeps that from us."""


class _Call(NamedTuple):
    plugin: str
    hook: str
    since: float
    until: float


class Watch:
    """Watches one call at a time. Without `start` only what a call has left behind is looked at."""

    def __init__(self) -> None:
        """Remember which process is the agent."""
        self._tgid = os.getpid()
        self._call: _Call | None = None
        self._handlers: dict[int, Any] = {}
        self._slow_calls: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._main = threading.get_ident()

    def start(self) -> None:
        """From now on interrupt calls, and keep signals handled as they are now. In the main thread only."""
        signal.signal(signal.SIGALRM, self._interrupt)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT, signal.SIGALRM, signal.SIGCHLD)
        self._handlers = {number: signal.getsignal(number) for number in numbers}
        threading.Thread(target=self._look, name="plugin watch", daemon=True).start()

    def enter(self, plugin: str, hook: str) -> None:
        """Note that a call of a plugin's hook begins."""
        now = time.monotonic()
        self._call = _Call(plugin, hook, now, now + _INTERRUPTED_AFTER_S.get(hook, _OTHERS_INTERRUPTED_AFTER_S))

    def leave(self) -> MisbehavedError | None:
        """Note that the call has ended, by returning or raising. Undoes and returns what it did against the rules."""
        call, self._call = self._call, None
        if os.getpid() != self._tgid:
            _end_fork()
        if changed := [number for number, handler in self._handlers.items() if signal.getsignal(number) is not handler]:
            for number in changed:
                signal.signal(number, self._handlers[number])
            return MisbehavedError(f"it changed how {signal.Signals(changed[0]).name} is handled, which was put back")
        if call is not None and call.hook in _EACH_EVENT and (took_s := time.monotonic() - call.since) > SLOW_S:
            return self._slow(call, took_s)
        return None

    def _slow(self, call: _Call, took_s: float) -> MisbehavedError:
        last = self._slow_calls.setdefault((call.plugin, call.hook), [])
        last[:] = [(since, each_s) for since, each_s in last if since > call.since - PART_OF_S] + [(call.since, took_s)]
        what = f"it took {took_s:.1f} s for one event; {SLOW_S:g} s are the most"
        return MisbehavedError(what, for_good=sum(each_s for _, each_s in last) > SLOW_PART_S)

    def _look(self) -> None:
        """The thread: interrupt a call of the main thread that is overdue."""
        while True:
            time.sleep(_LOOKS_EVERY_S)
            call = self._call
            if call is not None and time.monotonic() > call.until:
                signal.pthread_kill(self._main, signal.SIGALRM)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        call = self._call
        if call is not None and (now := time.monotonic()) > call.until:  # it is the one that was meant
            self._call = call._replace(until=now + _LOOKS_EVERY_S)
            raise OverdueError(f"it was interrupted after {now - call.since:.0f} s")


def _end_fork() -> NoReturn:
    complain("a process that a plugin forked came back into the agent's code, and was ended")
    os._exit(1)
