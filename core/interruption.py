"""A start that a signal ends is undone in order: what it has attached ends only while that is safe.

By default SIGTERM ends one process at once. What manages services then kills the others, which hold what was attached,
before they can leave the service's cgroup.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn


class Interrupted(KeyboardInterrupt):
    """Somebody asks a process to end that handles no signals yet."""

    def __init__(self, number: int) -> None:
        """`number`: the signal's."""
        super().__init__(number)
        self.signal = signal.Signals(number)


class Interruption:
    """Until the process handles signals by itself."""

    def __init__(self) -> None:
        """From here on the first SIGTERM, or SIGINT unless it is ignored as in the background, raises `Interrupted` in
        the main thread."""
        self._asked = 0
        signal.signal(signal.SIGTERM, self._interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)

    def check(self) -> None:
        """Raise it again where it was lost: in a destructor, or by somebody who takes any exception."""
        if self._asked:
            raise Interrupted(self._asked)

    def _interrupt(self, number: int, _frame: object) -> NoReturn:
        self._asked = number
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the undoing short
        raise Interrupted(number)


def end_by(number: signal.Signals) -> int:
    """End this process as the signal would have; returns, where that is blocked, what a shell has it exit with."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
