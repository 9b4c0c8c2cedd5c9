"""Bundles that the courier offers to the agent: which one is to be tried, and which one is.

A courier that was started again may offer another one, or the same again, while one is tried: it does not know of that.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.bundle_file import BundleFile


@dataclass(frozen=True, slots=True)
class Offered:
    """One that was verified by the courier."""

    file: BundleFile
    digest: str
    serial: int | None


class Offers:
    """The last one that came, and the one that the load which has begun reads."""

    def __init__(self) -> None:
        """No bundle has been offered yet."""
        self.waiting: Offered | None = None
        self._tried: Offered | None = None
        self._fresh = False

    def come(self, offered: Offered) -> Offered | None:
        """Take a new offer. Returns the previous one, if nobody will ask for it any more."""
        before, self.waiting, self._fresh = self.waiting, offered, True
        known = {offered.digest, self._tried.digest if self._tried is not None else ""}
        return before if before is not None and before.digest not in known else None

    def take_fresh(self) -> bool:
        """Whether one waits that was not tried yet; it counts as tried from here on."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def read(self) -> Offered | None:
        """A load begins, and reads this one; None: none is offered."""
        self._tried = self.waiting
        return self._tried

    def tried(self) -> Offered | None:
        """The load is over: what it has read. The same one is not tried again if it came a second time."""
        tried, self._tried = self._tried, None
        if tried is not None and self.waiting is not None and self.waiting.digest == tried.digest:
            self.waiting, self._fresh = None, False
        return tried

    def drop(self) -> Offered | None:
        """The one that waits is not to be tried."""
        waiting, self.waiting, self._fresh = self.waiting, None, False
        return waiting
