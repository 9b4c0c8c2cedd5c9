"""The gates of the interrupt table: where each leads, and those that lead out of the kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .events import IDT, PIECE_BYTES
from .explain import MODULES_RANGE
from .pieces import Piece

BYTES = 16
"""Of one."""
_WORD = 8
_PRESENT = 1 << 47
_IMAGE = range(0xFFFF_FFFF_8000_0000, MODULES_RANGE.start)
"""x86-64: where the kernel itself lies."""


def leads_to(gate: bytes) -> int:
    """0 where it is not present."""
    low, high = struct.unpack("=2Q", gate)
    return low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32 if low & _PRESENT else 0


def pieces(start: int, content: bytes, name: str) -> Iterator[Piece]:
    """What a look compares. Some gates that nothing uses lead to code that is gone once the kernel has booted."""
    for first in range(0, len(content), PIECE_BYTES):
        part = content[first : first + PIECE_BYTES]
        found = {at: leads_to(part[at : at + BYTES]) for at in range(0, len(part), BYTES)}
        strays = [at for at, to in found.items() if to and to not in _IMAGE]
        yield Piece(
            IDT,
            start + first,
            part,
            number=first // BYTES,
            wrong=tuple(at // _WORD for at in strays),
            taken=tuple(range(at, at + BYTES) for at in strays),
            name=name,
            offset=first,
        )
