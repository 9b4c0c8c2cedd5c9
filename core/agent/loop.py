"""The agent's loop: waits for records, requests and time, and does what is due. One thread does all of it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from functools import partial

from ..timer import Timer
from .control import Control
from .endurance import Endurance
from .inbox import Inbox
from .reload import Reload
from .signals import Signals

_LOADING_S = 0.05
"""It looks so often whether a policy that is being compiled is ready."""
Work = tuple[str, float, Callable[[], None]]
"""What recurs: its name, its interval, s, and what is to be done."""


class Loop:
    """Runs until a signal, or the end of its time."""

    def __init__(
        self,
        signals: Signals,
        endurance: Endurance,
        inbox: Inbox,
        control: Control,
        reload: Reload,
        tell_journal: Callable[[], None],
        try_again: Callable[[], None],
    ) -> None:
        """`tell_journal`: what became of its files; `try_again`: what besides a reload an administrator wants by
        SIGHUP."""
        self._signals, self._endurance, self._inbox, self._control = signals, endurance, inbox, control
        self._reload, self._tell_journal, self._try_again = reload, tell_journal, try_again

    def run(self, poll: select.epoll, work: Iterable[Work], duration_s: float | None) -> str:
        """Returns the reason for its end. `poll` wakes up for all that may come."""
        now = time.monotonic()
        end = now + duration_s if duration_s is not None else float("inf")
        timers = tuple(Timer(interval_s, partial(self._endurance.run, name, act)) for name, interval_s, act in work)
        while not self._signals.stop_reason:
            due = min(end, *(each.due for each in timers))
            if self._reload.loading:
                due = min(due, time.monotonic() + _LOADING_S)
            if self._inbox.waiting:
                due = 0.0
            poll.poll(max(0.0, due - time.monotonic()))
            self._endurance.run("records", self._inbox.drain)
            self._endurance.run("control", self._control.serve)
            self._tell_journal()
            self._endurance.run("services", self._reload.hear_services)
            now = time.monotonic()
            for timer in timers:
                timer.run_if_due(now)
            if self._reload.loading:
                self._endurance.run("reload", self._reload.finish)
            elif self._signals.take_reload():
                self._try_again()
                self._endurance.run("reload", self._reload.begin)
            if now >= end:
                self._signals.stop_reason = f"{duration_s:g} s elapsed"
        return self._signals.stop_reason
