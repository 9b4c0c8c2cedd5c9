"""Room for one more poisoned process, where its user has all of his: see `krie_poison()` in `bpf/verdict.bpf.c`.

Whoever has more poisoned processes makes it, by the one whose time is over first. Nobody makes room for himself: he
could have one of his processes freed by having thousands of others poisoned.
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

    def __init__(
        self, table: Table, gave_way: Callable[[Verdict], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look at nothing yet. `gave_way` is told what was taken back; `clock`: seconds."""
        self._table, self._gave_way, self._clock = table, gave_way, clock
        self._of: dict[int, list[Verdict]] = {}
        """By share: those last whose time is over first."""
        self._walk_from = 0.0

    def make(self, share: int) -> bool:
        """Take back one poison of whoever has most; False where that is whose share this is. Raises `KernelError`."""
        if self._clock() >= self._walk_from:
            self._walk()
        while self._of:
            most = max(self._of, key=lambda share: len(self._of[share]))
            if len(self._of[most]) <= len(self._of.get(share, ())):
                return False
            verdict = self._of[most].pop()
            if not self._of[most]:
                del self._of[most]
            if self._table.stands(verdict):
                self._table.clear(verdict)
                self._gave_way(verdict)
                return True
        return False

    def _walk(self) -> None:
        began = self._clock()
        self._of = {}
        for verdict in sorted(self._table.poisoned(), key=lambda each: -each.until):
            self._of.setdefault(verdict.share, []).append(verdict)
        now = self._clock()
        self._walk_from = now + _REST * (now - began)
