"""Random records near to what the rules compare with: their constants, the neighbours of these, the ends of each type,
values that have no name, text that fills its field."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ..events.event import EventType
from ..events.identity import Identity
from ..events.inline import inline_fields
from ..events.layout import Field
from ..events.wire import WIDTHS, Bitmap, Boolean, Bytes, Chars, Choice, FlagSet, bytes_of
from .domain import all_constants
from .subject import Subject

_FILE = struct.Struct("=IQI")
_FILE_FIELDS = ("exe_dev", "exe_ino", "exe_generation")
Parts = tuple[bytes, ...]
"""What a record is made of: the bytes of each field that is drawn, and of the executable's identity."""


@dataclass(frozen=True, slots=True)
class _Values:
    """What one part is drawn from."""

    near: tuple[Sequence[bytes], ...]
    """Constants of the rules, and what lies beside them: the simplest first."""
    free: Callable[[Random], bytes]

    def draw(self, random: Random) -> bytes:
        """From each list as often as anything else."""
        chosen = random.randrange(len(self.near) + 1)
        return random.choice(self.near[chosen]) if chosen < len(self.near) else self.free(random)

    def simpler(self, value: bytes) -> Iterator[bytes]:
        """Those that are simpler than this one, the simplest first."""
        for each in (bytes(len(value)), *(each for values in self.near for each in values)):
            if each == value:
                return
            yield each


class Records:
    """Draws records of one kind. Only what programs know before they send the record differs."""

    def __init__(self, subject: Subject, event_type: EventType) -> None:
        """Near to the constants of the subject's rules."""
        uses = {
            each.path: use
            for placement in subject.tiers.placements
            if placement.kind == event_type.name
            for each, use in placement.uses.items()
        }
        inline = inline_fields(event_type)
        self._type = event_type
        self._places = {each.name: each for each in event_type.layout.data_fields}
        self._fields = [each for each in self._places.values() if each.inline or each.name == "context"]
        self._values = []
        for each in self._fields:
            part = "event" if ("event", each.name) in inline else "process"
            use = uses.get((part, each.name))
            self._values.append(_values(each, sorted(all_constants([use] if use is not None else []), key=repr)))
        self._values.append(_executables(sorted(subject.numbers.files)))

    def draw(self, random: Random) -> Parts:
        """One record, in parts."""
        return tuple(each.draw(random) for each in self._values)

    def whole(self, parts: Parts) -> bytes:
        """The record's bytes."""
        raw = bytearray(self._type.layout.size)
        *own, file = parts
        for each, value in zip(self._fields, own, strict=True):
            raw[each.offset : each.offset + each.size] = value
        numbers = {"kind": self._type.kind, "version": self._type.version, "size": len(raw)}
        numbers |= zip(_FILE_FIELDS, _FILE.unpack(file), strict=True)
        for name, number in numbers.items():
            struct.pack_into("=" + self._places[name].wire.code, raw, self._places[name].offset, number)
        return bytes(raw)

    def shrunk(self, parts: Parts, shows: Callable[[Parts], bool]) -> Parts:
        """The same with all that is not needed taken away, as far as the rest still `shows` what it did."""
        before: Parts = ()
        while parts != before:
            before = parts
            for at, values in enumerate(self._values):
                simpler = ((*parts[:at], each, *parts[at + 1 :]) for each in values.simpler(parts[at]))
                parts = next(filter(shows, simpler), parts)
        return parts


def _values(each: Field, constants: Sequence[Any]) -> _Values:
    wire = each.wire
    if isinstance(wire, Chars):
        texts = [raw for text in constants if isinstance(text, str) and (raw := bytes_of(text)) is not None]
        return _texts(texts, each.size)
    assert not isinstance(wire, Bitmap | Bytes)
    bits, signed = 8 * WIDTHS[wire.code], wire.code.islower()
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    exact, special = set[int](), {least, most, 0, 1}
    if isinstance(wire, Boolean):
        special = {0, 1, 2, most}
    elif isinstance(wire, Choice | FlagSet):
        exact = {number for number, name in wire.names.items() if name in constants}
        special |= {near for number in wire.names for near in (number, number + 1)} | {sum(wire.names) & most}
    else:
        exact = {int(constant) for constant in constants if isinstance(constant, int | float)}
        special |= {constant + step for constant in exact for step in (-1, 1)}

    def packed(number: int) -> bytes:
        return struct.pack("=" + wire.code, number)

    def free(random: Random) -> bytes:  # small numbers as often as large ones
        return random.getrandbits(random.randint(1, bits)).to_bytes(bits // 8, "little")

    return _near(
        *(
            [packed(number) for number in sorted(numbers, key=abs) if least <= number <= most]
            for numbers in (exact, special)
        ),
        free=free,
    )


def _texts(constants: Sequence[bytes], size: int) -> _Values:
    def near(text: bytes) -> Iterator[bytes]:
        yield from (text + b"x", text[:-1], text.swapcase(), b"\\" + text)

    special = [each for text in constants for each in near(text)] + [b"", b"a" * (size - 1)]
    return _near(
        *([each.ljust(size, b"\0") for each in sorted(texts) if len(each) < size] for texts in (constants, special)),
        free=lambda random: random.randbytes(random.randrange(size)).replace(b"\0", b".").ljust(size, b"\0"),
    )


def _executables(known: Sequence[Identity]) -> _Values:
    """Those that have a name, their like with another generation, none, and others."""
    return _near(
        [_FILE.pack(*each) for each in known],
        [_FILE.pack(each.dev, each.ino, each.generation ^ 1) for each in known],
        [bytes(_FILE.size)],
        free=lambda random: _FILE.pack(*(random.randint(1, 9) for _ in range(3))),
    )


def _near(*lists: Sequence[bytes], free: Callable[[Random], bytes]) -> _Values:
    return _Values(tuple(each for each in lists if each), free)
