"""Room for one more poisoned process, where its user has all of his: see `krie_poison()` in `bpf/verdict.bpf.c`.

Who has most poisoned processes makes it, by the one whose time is over first: so who has many processes poisoned cannot
thereby have a further one act freely, and nobody else pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from .verdicts import Verdict

_REST = 10
"""So many times as long as a walk through all poisoned processes took, there is no other."""


class Table(Protocol):
    """Where they are: see `krie.enforce.verdicts.Verdicts`."""

    def poisoned(self) -> Iterator[Verdict]:
        """All of them."""

    def stands(self, verdict: Verdict) -> bool:
        """Whether the process is poisoned still."""

    def clear(self, verdict: Verdict) -> None:
        """Take it back."""


class Room:
    """Remembers the poisoned processes of the last walk, by whose they are."""

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at nothing yet. `clock`: seconds."""
        self._table, self._clock = table, clock
        self._of: dict[int, list[Verdict]] = {}
        """By share: those last whose time is over first."""
        self._walk_from = 0.0

    def make(self) -> bool:
        """Take back one poison of whoever has most; False where none is known. Raises `KernelError`."""
        if self._clock() >= self._walk_from:
            self._walk()
        while self._of:
            most = max(self._of, key=lambda share: len(self._of[share]))
            verdict = self._of[most].pop()
            if not self._of[most]:
                del self._of[most]
            if self._table.stands(verdict):
                self._table.clear(verdict)
                return True
        return False

    def _walk(self) -> None:
        began = self._clock()
        self._of = {}
        for verdict in sorted(self._table.poisoned(), key=lambda each: -each.until):
            self._of.setdefault(verdict.share, []).append(verdict)
        now = self._clock()
        self._walk_from = now + _REST * (now - began)
