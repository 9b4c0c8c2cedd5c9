"""Keys and values of maps that are a number in C without a struct around it: an index, a flag, a time.

`krie.kernel.maps.Map` refuses keys and values of another size than the map's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Number:
    """An unsigned number, by its `struct` format."""

    form: str
    _packed: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the format once."""
        object.__setattr__(self, "_packed", struct.Struct(f"={self.form}"))

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._packed.size

    def encode(self, value: int) -> bytes:
        """The number as bytes."""
        return self._packed.pack(value)

    def decode(self, raw: bytes | None) -> int:
        """The inverse of `encode`; of None, which is what a map has not, 0."""
        return int(self._packed.unpack(raw)[0]) if raw is not None else 0

    def total(self, values: bytes) -> int:
        """The sum over all CPUs of a per-CPU value, in which each has 8 bytes."""
        step = (self.size + 7) // 8 * 8
        return sum(self.decode(values[at : at + self.size]) for at in range(0, len(values), step))


WORD = Number("I")
"""`u32` in C: the index of an array, and most keys and values that are one number."""
LONG = Number("Q")
"""`u64` in C: addresses, times and counts."""
ONLY = WORD.encode(0)
"""The key of an array that has one element."""
PRESENT = WORD.encode(1)
"""The value of a key that is in a map to be there."""
