"""Where the kernel patches its own code legally while it runs, out of its own tables: jump labels and static calls."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right

from krie import KernelError, KernelMemory

from .kallsyms import Kallsyms

SYMBOLS = (
    "__start___jump_table",
    "__stop___jump_table",
    "__start_static_call_sites",
    "__stop_static_call_sites",
)
_PATCHED_BYTES = 5


class PatchedCode:
    """Addresses of instructions that change. `known`: whether this kernel says where all of them are."""

    def __init__(self, symbols: Kallsyms, memory: KernelMemory) -> None:
        """Read the tables. What cannot be read is not known."""
        self.known = bool(symbols.address(SYMBOLS[0]) and symbols.address(SYMBOLS[1]))
        places: set[int] = set()
        for start, stop, entry in ((SYMBOLS[0], SYMBOLS[1], 16), (SYMBOLS[2], SYMBOLS[3], 8)):
            begin, end = symbols.address(start), symbols.address(stop)
            if not begin or end <= begin:
                continue
            try:
                table = memory.read(begin, end - begin)
            except KernelError:
                self.known = False
                continue
            # Each entry begins with where it counts from itself to the code (50ff18ab497a, 9183c3f9ed71).
            offsets = (offset for (offset,) in struct.iter_unpack(f"=i{entry - 4}x", table))
            places.update(begin + entry * index + offset for index, offset in enumerate(offsets))
        self._places = sorted(places)

    def within(self, part: range) -> tuple[range, ...]:
        """What of these addresses changes, as offsets in them."""
        first = bisect_right(self._places, part.start - _PATCHED_BYTES)
        last = bisect_left(self._places, part.stop)
        return tuple(
            range(max(0, place - part.start), min(len(part), place - part.start + _PATCHED_BYTES))
            for place in self._places[first:last]
        )
