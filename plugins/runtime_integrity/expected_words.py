"""What looks of the kernel side compare: the watched variables, as words of up to eight bytes with their bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import U64, Doc, Shared

from .topic import PREFIX
from .watched import Watched

MOST_WORDS = 256
"""Room for them; the last one ends all."""
_MOST_BYTES = 128
"""A variable of bytes that is longer is compared by scans alone: the kernel's tables of hooks have thousands."""
_WORD_BYTES = 8
_ALL = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Expected(Shared):
    """A word, and what it may hold. Behind the last one: length 0."""

    C_NAME: ClassVar[str] = f"{PREFIX}_expected"
    address: U64
    mask: Annotated[U64, Doc("bits that count")]
    flip: Annotated[U64, Doc("turned over, of what counts, before it is compared: the sign of signed numbers")]
    least: U64
    most: U64
    length: Annotated[U64, Doc("bytes that are read")]


@dataclass(frozen=True, slots=True)
class Told(Shared):
    """What was last told of a word."""

    C_NAME: ClassVar[str] = f"{PREFIX}_told"
    value: U64
    differs: Annotated[U64, Doc("1: that it is other than it should be")]
    telling: Annotated[U64, Doc("by how many programs it is being told")]


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a variable."""

    watched: Watched
    offset: int
    """Of the variable's bytes, its first one."""
    expected: Expected


def words(watched: Iterable[Watched]) -> Iterator[Word]:
    """All words of all variables that are not too long, as they are expected to be."""
    for one in watched:
        if ":" in one.parameter.symbol:  # of a module, whose memory is another one's once it has gone
            continue
        if one.parameter.form == "number":
            yield Word(one, 0, _number(one))
        elif (content := _content(one)) is not None:
            for offset in range(0, len(content), _WORD_BYTES):
                yield Word(one, offset, _same(one.address + offset, content[offset : offset + _WORD_BYTES]))


def _number(one: Watched) -> Expected:
    bits = 8 * one.size
    full = (1 << bits) - 1
    mask = full if one.parameter.mask is None else one.parameter.mask & full
    signed = one.parameter.signed and one.parameter.mask is None and one.parameter.baseline != "set"
    flip = 1 << (bits - 1) if signed else 0
    least, most = one.bounds()
    lowest, highest = -flip, full - flip
    if (least is not None and least > highest) or (most is not None and most < lowest):
        return Expected(one.address, mask, flip, _ALL, 0, one.size)  # no value of this size is right
    return Expected(
        one.address,
        mask,
        flip,
        0 if least is None else max(least, lowest) + flip,
        _ALL if most is None else min(most, highest) + flip,
        one.size,
    )


def _content(one: Watched) -> bytes | None:
    """What it should hold, up to where that counts."""
    if one.parameter.form == "bytes":
        return one.start if len(one.start) <= _MOST_BYTES else None
    return one.wanted_text()[: one.size - 1] + b"\0"


def _same(address: int, content: bytes) -> Expected:
    value = int.from_bytes(content, "little")
    return Expected(address, (1 << 8 * len(content)) - 1, 0, value, value, len(content))
