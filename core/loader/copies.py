"""One C function at many places: each is a program of its own, whose instructions know which one they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..events.agreed import SECRET, SELF

_LOAD_64 = 0x18
_INSTRUCTION = struct.Struct("<BBhI")


def copy_for(index: int, argument: int, instructions: bytes) -> bytes:
    """The instructions of the program with this index in `krie_alive` and this argument."""
    return _written_over(instructions, SELF, argument << 32 | index)


def with_secret(secret: int, instructions: bytes) -> bytes:
    """The instructions of a program that only does something for whoever knows this number of 64 bits."""
    return _written_over(instructions, SECRET, secret)


def _written_over(instructions: bytes, before: int, after: int) -> bytes:
    copied = bytearray(instructions)
    for offset in _places(instructions, before):
        struct.pack_into("<I", copied, offset + 4, after & 0xFFFFFFFF)
        struct.pack_into("<I", copied, offset + 12, after >> 32)
    return bytes(copied)


def _places(instructions: bytes, number: int) -> Iterator[int]:
    """Offsets of the instructions that load this number."""
    for offset in range(0, len(instructions) - 8, 8):
        code, registers, _, low = _INSTRUCTION.unpack_from(instructions, offset)
        second, _, _, high = _INSTRUCTION.unpack_from(instructions, offset + 8)
        if (code, registers >> 4, second, high << 32 | low) == (_LOAD_64, 0, 0, number):
            yield offset
