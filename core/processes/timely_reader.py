"""Reads what somebody else can have the kernel wait for, without waiting longer than a moment.

Whoever maps a file of a FUSE that he serves himself decides how long a page of it takes to come. Meanwhile the memory
of his process is locked, and /proc/TGID/environ of it is read by nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("krie")
WAIT_S = 1.0
"""It takes some 20 us, and longer only where the process is just changing its memory."""
MOST = 16
"""Threads that wait at once, each for as long as its process likes: beyond that, nothing is read."""


class TimelyReader:
    """Reads files in threads, of which some may never come back."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        """`wait_s`: how long to wait for a file."""
        self._wait_s = wait_s
        self._late: list[threading.Thread] = []

    def read(self, file: str, read: Callable[[], bytes]) -> bytes | None:
        """What a file holds, which `read` reads; None where it cannot be read, or not in time."""
        self._late = [each for each in self._late if each.is_alive()]
        if len(self._late) >= MOST:
            _log.warning("%s is not read: %d others give no answer", file, MOST)
            return None
        found: list[bytes] = []
        thread = threading.Thread(target=_read, args=(read, found), name="krie-reader", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there may be no more of them: pids.max, RLIMIT_NPROC
            _log.warning("%s is not read: %s", file, error)
            return None
        thread.join(self._wait_s)
        if thread.is_alive():
            self._late.append(thread)
            _log.warning("%s: no answer for %.0f s", file, self._wait_s)
            return None
        return found[0] if found else None


def _read(read: Callable[[], bytes], found: list[bytes]) -> None:
    try:
        found.append(read())
    except OSError:
        return
