"""Ending a process from user space: only the very one that is meant, never another that got its number."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..errors import KernelError
from ..events.identity import Key
from ..processes.proc import TICK_NS, started

StartTime = Callable[[int], int]
"""When a process started, by its tgid, as the kernel's side tells it, ns; 0 where it does not."""
DIES_WITHIN_MS = 50
"""How long to wait for the end of whoever got the signal: nothing else is decided meanwhile."""
_PATIENT_PART = 10
"""Whoever dies slowly may have others wait for one part of so many of the time."""


class Gone(Exception):
    """The process has ended, or another one has its number."""


@contextmanager
def held(process: Key, start_time: StartTime) -> Iterator[int]:
    """A pidfd of the process: what it names stays this process. Raises `Gone`, `OSError`, `KernelError`."""
    try:
        descriptor = os.pidfd_open(process.tgid)
    except ProcessLookupError:
        raise Gone from None
    try:
        if not _started_at(process, descriptor, start_time):
            raise Gone
        yield descriptor
    finally:
        os.close(descriptor)


def gone(process: Key, start_time: StartTime) -> bool:
    """Whether it has ended. One that cannot be asked about has not."""
    try:
        with held(process, start_time) as descriptor:
            return ended(descriptor)
    except Gone:
        return True
    except (KernelError, OSError):
        return False


def ended(descriptor: int, wait_ms: int = 0) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(wait_ms))


class Killer:
    """Sends SIGKILL, and waits a moment for what it does."""

    def __init__(self) -> None:
        """It has waited for nobody."""
        self._patient_from = 0.0

    def kill(self, descriptor: int) -> bool:
        """True when the process has ended, False when only the signal is known to be sent. Raises `Gone`, `OSError`."""
        with suppress(InterruptedError):
            if ended(descriptor):
                raise Gone
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            raise Gone from None
        began = time.monotonic()
        if began < self._patient_from:
            return ended(descriptor)
        if ended(descriptor, DIES_WITHIN_MS):
            return True
        now = time.monotonic()
        self._patient_from = now + _PATIENT_PART * (now - began)
        return False


def _started_at(process: Key, descriptor: int, start_time: StartTime) -> bool:
    """Whether who has this pidfd started at that time, on the same clock, as exactly as /proc tells it.

    Of one that lives /proc may not tell it: it may hide processes, or be covered. Then the kernel's side is asked, and
    where it does not tell it either, this raises `OSError`.
    """
    try:
        return started(process.tgid) == process.start_time // TICK_NS
    except OSError as error:
        if ended(descriptor):
            return False
        if known := start_time(process.tgid):
            return known // TICK_NS == process.start_time // TICK_NS
        why = error.strerror or str(error) or "it does not show the process"
        raise OSError(f"whether {process.tgid} is still this process cannot be read in /proc: {why}") from error
