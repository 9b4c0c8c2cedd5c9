"""The jumps and calls of a function that dispatches system calls by a switch (1e3ad78334a6), found in its bytes.

No disassembler is needed: a jump or call of 32 bits is known by where it leads. What looks like one by chance, in the
middle of another instruction, does not lead to the begin of a handler.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass

_JUMP = re.compile(rb"(?=([\xe8\xe9]|\x0f[\x80-\x8f]))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Jump:
    """One of 32 bits."""

    address: int
    length: int
    target: int


def _jumps(start: int, code: bytes) -> list[Jump]:
    """All that may be one, by address; they may overlap."""
    found = []
    for match in _JUMP.finditer(code):
        opcode = len(match[1])
        end = match.start() + opcode + 4
        if end > len(code):
            continue
        (relative,) = struct.unpack_from("=i", code, match.start() + opcode)
        found.append(Jump(start + match.start(), opcode + 4, (start + end + relative) & 0xFFFF_FFFF_FFFF_FFFF))
    return found


@dataclass(frozen=True, slots=True)
class Switch:
    """What was found of one function."""

    jumps: tuple[Jump, ...]
    """Those to handlers, by address; none overlaps another."""
    strange: tuple[Jump, ...]
    """What may be jumps out of the kernel's own code: by chance, or because somebody has put them there."""


def read_switch(start: int, code: bytes, handlers: Collection[int], text: range) -> Switch:
    """`handlers`: begins of functions that a system call may lead to; `text`: the kernel's own code."""
    found = _jumps(start, code)
    kept = [each for each in found if each.target in handlers]
    inside = [each for each in found if start <= each.target < start + len(code)]
    taken = {address for each in (*kept, *inside) for address in range(each.address, each.address + each.length)}
    strange = [
        each
        for each in found
        if each.target not in text and taken.isdisjoint(range(each.address, each.address + each.length))
    ]
    return Switch(tuple(kept), tuple(strange))
