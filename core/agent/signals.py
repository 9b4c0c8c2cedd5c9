"""What is asked of the agent from outside, mostly by signals: its loop takes that up between two rounds."""

from __future__ import annotations

import signal


class Signals:
    """Remembers what was asked, since a handler may run within anything."""

    def __init__(self) -> None:
        """From here on the agent hears SIGHUP, which would end it, and SIGCONT."""
        self.stop_reason = ""
        """Why it is to end; empty while it is not."""
        self._reload_wanted = self._continued = False
        signal.signal(signal.SIGHUP, self._want_reload)
        signal.signal(signal.SIGCONT, self._note_continued)

    def hear_ends(self) -> None:
        """From here on SIGINT and SIGTERM are reasons to stop, whatever a plugin has blocked."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self.stop(signal.Signals(number).name))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def stop(self, reason: str) -> None:
        """Let the agent end; the first reason stands."""
        self.stop_reason = self.stop_reason or reason

    def take_reload(self) -> bool:
        """Whether a reload was asked for, and not taken up yet."""
        wanted, self._reload_wanted = self._reload_wanted, False
        return wanted

    def take_continued(self) -> bool:
        """Whether SIGCONT came since this was last asked."""
        continued, self._continued = self._continued, False
        return continued

    def _note_continued(self, _number: int, _frame: object) -> None:
        self._continued = True

    def _want_reload(self, _number: int, _frame: object) -> None:
        self._reload_wanted = True
