"""Looks at the folders of policies from time to time, without waiting for a file system that does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from .snapshot import Stamp, place_of, stamp_of

_log = logging.getLogger("krie")
_WAIT_S = 0.1
"""Looking takes a few milliseconds; what takes longer is asked for again."""
_LATE_S = 10.0


class Lookout:
    """Looks in a thread of its own: a network file system that hangs stops that thread, and nothing else."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Nothing is looked at yet."""
        self._folders = tuple(folders)
        self._thread: threading.Thread | None = None
        self._found: Stamp | None = None
        self._started = 0.0
        self._told = False

    def look(self) -> Stamp | None:
        """How the folders are now; None where that is not known yet."""
        if self._thread is None:
            self._found, self._started = None, time.monotonic()
            self._thread = threading.Thread(target=self._look, name="krie-lookout", daemon=True)
            self._thread.start()
        self._thread.join(_WAIT_S)
        if self._thread.is_alive():
            if not self._told and time.monotonic() - self._started > _LATE_S:
                self._told = True
                names = ", ".join(map(place_of, self._folders))
                _log.warning("policy: %s: no answer for %.0f s; changes there are not noticed", names, _LATE_S)
            return None
        self._thread, self._told = None, False
        return self._found

    def _look(self) -> None:
        self._found = stamp_of(self._folders)
