"""What an event loop does at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timer:
    """Runs an action once an interval, if it is asked often enough; never twice for time that was missed."""

    def __init__(self, interval_s: float, action: Callable[[], None]) -> None:
        """The first time is one interval from now."""
        self._interval_s, self._action = interval_s, action
        self.due = time.monotonic() + interval_s
        """When it is to run next, by the monotonic clock."""

    def run_if_due(self, now: float) -> None:
        """Run it if its time has come."""
        if now >= self.due:
            self.due = now + self._interval_s
            self._action()
