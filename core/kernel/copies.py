"""One C function at many places: each is a program of its own, whose instructions know which one they are."""

from __future__ import annotations

import struct

_SELF = 0x6B72696573656C66
"""What `krie_self()` in `bpf/krie.h` is before it is written over."""
_LOAD_64 = 0x18
_INSTRUCTION = struct.Struct("<BBhI")


def copy_for(index: int, argument: int, instructions: bytes) -> bytes:
    """The instructions of the program with this index in `krie_alive` and this argument."""
    copied = bytearray(instructions)
    for offset in range(0, len(copied) - 8, 8):
        code, registers, _, low = _INSTRUCTION.unpack_from(copied, offset)
        second, _, _, high = _INSTRUCTION.unpack_from(copied, offset + 8)
        if (code, registers >> 4, second, high << 32 | low) == (_LOAD_64, 0, 0, _SELF):
            struct.pack_into("<I", copied, offset + 4, index)
            struct.pack_into("<I", copied, offset + 12, argument)
    return bytes(copied)
