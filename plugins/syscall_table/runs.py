"""Where two states of memory differ: runs of bytes, and ranges of addresses put together."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

_PAGE = 4096
_DIFFERENT = re.compile(rb"[^\0]+")


def runs(before: bytes, now: bytes) -> Iterator[range]:
    """Offsets of bytes that differ, each run as long as it can be. Both have the same size."""
    start = end = 0
    for page in range(0, len(now), _PAGE):
        old, new = before[page : page + _PAGE], now[page : page + _PAGE]
        if old == new:
            continue
        different = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        for match in _DIFFERENT.finditer(different.to_bytes(len(new), "little")):
            if page + match.start() == end:  # goes on from the page before
                end = page + match.end()
                continue
            if end > start:
                yield range(start, end)
            start, end = page + match.start(), page + match.end()
    if end > start:
        yield range(start, end)


class Ranges:
    """Addresses that lie in at least one of many ranges."""

    def __init__(self, parts: Iterable[tuple[int, int]]) -> None:
        """`parts`: address and length of each, in any order."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, length in sorted(parts):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], start + length)
            elif length > 0:
                self._starts.append(start)
                self._ends.append(start + length)

    def __iter__(self) -> Iterator[range]:
        """Each of them, put together."""
        return map(range, self._starts, self._ends)

    def end(self, address: int) -> int:
        """Where the range ends that this address lies in; 0 where it lies in none."""
        index = bisect_right(self._starts, address) - 1
        return self._ends[index] if index >= 0 and address < self._ends[index] else 0
