"""The slots of a table of system calls, held against the names of the handlers."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .events import PIECE_BYTES, TABLE
from .pieces import Piece

BYTES = 8
"""Of one."""
_PER_PIECE = PIECE_BYTES // BYTES


@dataclass(frozen=True, slots=True)
class Slots:
    """A table as it should be, as far as that is known."""

    start: int
    """Where it begins."""
    expected: tuple[int, ...]
    """By number, to where each should lead; where no name tells, to where it leads."""
    wrong: frozenset[int]
    """Numbers of those that lead elsewhere."""
    unknown: frozenset[int]
    """Of these, where it should lead to instead is not known."""

    def pieces(self, abi: int, name: str) -> Iterator[Piece]:
        """What a look compares; `name`: the table's."""
        for first in range(0, len(self.expected), _PER_PIECE):
            part = self.expected[first : first + _PER_PIECE]
            words = range(len(part))
            yield Piece(
                TABLE,
                self.start + BYTES * first,
                struct.pack(f"={len(part)}Q", *part),
                abi=abi,
                number=first,
                wrong=tuple(each for each in words if first + each in self.wrong),
                taken=tuple(
                    range(BYTES * each, BYTES * each + BYTES) for each in words if first + each in self.unknown
                ),
                name=name,
                offset=BYTES * first,
            )


def read_slots(start: int, found: Sequence[int], handlers: Collection[int], named: Mapping[int, int]) -> Slots:
    """`found`: what is there now; `named`: by number the handlers whose names say for sure that it is theirs."""
    end = len(found)
    while end and not found[end - 1] and end - 1 not in named:  # up to where the next variable is aligned
        end -= 1
    expected = tuple(named.get(number, found[number]) for number in range(end))
    unknown = {number for number, handler in enumerate(expected) if handler not in handlers}
    others = {number for number, handler in enumerate(expected) if handler != found[number]}
    return Slots(start, expected, frozenset(unknown | others), frozenset(unknown))
