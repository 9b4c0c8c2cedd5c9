"""Verdicts on operations of one kind: each until its time, or its process, has ended.

Their table in the kernel has room for some thousands. What processes leave behind that have ended would fill it, and so
would one user with many processes: then he makes room himself, and no other user.
"""

from __future__ import annotations

import errno
from typing import Protocol

from ..errors import KernelError
from ..events.identity import Key
from ..processes.principal import Principal
from .verdicts import Verdict

_FULL = (errno.E2BIG, errno.ENOSPC)
_Place = tuple[Key, int]
"""Whom a verdict is about, and of which kind."""


class Table(Protocol):
    """Where these take effect: see `krie.enforce.verdicts.Verdicts`."""

    def bind(self, verdict: Verdict) -> None:
        """Refuse operations of one kind. Raises `KernelError` where the table is full."""

    def clear(self, verdict: Verdict) -> None:
        """Take one back."""


class Bound:
    """What stands in the table."""

    def __init__(self, table: Table) -> None:
        """Nothing does."""
        self._table = table
        self._standing: dict[_Place, tuple[Verdict, Principal]] = {}
        self._kinds: dict[Key, set[int]] = {}
        self._of: dict[Principal, dict[_Place, None]] = {}
        """The oldest first."""

    def __len__(self) -> int:
        """How many stand."""
        return len(self._standing)

    def bind(self, verdict: Verdict, principal: Principal) -> None:
        """Refuse operations of one kind by a process of this principal. Raises `KernelError`."""
        while not self._bound(verdict):
            most = max(self._of.values(), key=len)
            self._end(next(iter(most)))  # which administrators may have taken back before: then there is no more room
        place = verdict.process, verdict.kind
        self._forget(place)
        self._standing[place] = verdict, principal
        self._kinds.setdefault(verdict.process, set()).add(verdict.kind)
        self._of.setdefault(principal, {})[place] = None

    def ended(self, process: Key) -> None:
        """A process has ended. Raises `KernelError`."""
        for kind in tuple(self._kinds.get(process, ())):
            self._end((process, kind))

    def tick(self, now: int) -> None:
        """End what is over. `now`: ns since boot. Raises `KernelError`."""
        for place in [place for place, (verdict, _) in self._standing.items() if verdict.until <= now]:
            self._end(place)

    def _bound(self, verdict: Verdict) -> bool:
        """False where the table is full, and somebody can make room."""
        try:
            self._table.bind(verdict)
        except KernelError as error:
            if error.errno not in _FULL or not self._of:
                raise
            return False
        return True

    def _end(self, place: _Place) -> None:
        verdict, _ = self._standing[place]
        self._table.clear(verdict)
        self._forget(place)

    def _forget(self, place: _Place) -> None:
        if (known := self._standing.pop(place, None)) is None:
            return
        process, kind = place
        kinds, places = self._kinds[process], self._of[known[1]]
        kinds.discard(kind)
        places.pop(place)
        if not kinds:
            del self._kinds[process]
        if not places:
            del self._of[known[1]]
