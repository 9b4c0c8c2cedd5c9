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


def interrupt_by_signals() -> None:
    """From here on the first SIGTERM, or SIGINT unless it is ignored as in the background, raises `Interrupted` in the
    main thread."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def end_by(number: signal.Signals) -> int:
    """End this process as the signal would have; returns, where that is blocked, what a shell has it exit with."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def was_interrupted() -> bool:
    """Whether such a signal came: what it raised may have been lost, in a destructor or by who takes any exception."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _interrupt(number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one would cut the undoing short
    raise Interrupted(number)
