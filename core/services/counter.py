"""A number that one process counts and another one reads, even after the first has ended."""

from __future__ import annotations

import mmap
import struct

_NUMBER = struct.Struct("=Q")


class Counter:
    """To be made before the process that counts is forked. One thread of one process counts at a time."""

    def __init__(self) -> None:
        """Start at zero."""
        self._shared = mmap.mmap(-1, _NUMBER.size)

    def add(self) -> None:
        """Add one."""
        _NUMBER.pack_into(self._shared, 0, self.value + 1)

    def reset(self) -> None:
        """Zero again; for when nobody counts."""
        _NUMBER.pack_into(self._shared, 0, 0)

    @property
    def value(self) -> int:
        """What was counted."""
        found: int = _NUMBER.unpack_from(self._shared)[0]
        return found
