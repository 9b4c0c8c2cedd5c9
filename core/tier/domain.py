"""What an inline field can hold, cut into cells: sets of values that no rule tells apart.

An atom is one comparison of the field with a constant. Values for which all atoms have the same answer give every rule
the same answer, so one value a cell is enough to ask the engine about, and the kernel needs to know the cell only.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, count
from typing import Any

from ..events.identity import Identity
from ..events.inline import InlineField
from ..events.wire import NAME_BYTES, WIDTHS, Boolean, Chars, Choice, FlagSet, Integer, Json, bytes_of

_MOST_BITS = 6
_TOP = (1 << 64) - 1
_REST = 1 << 63
_SIGN = 1 << 63


class NotDecidable(Exception):
    """A field is used in a way that the kernel's tables cannot hold; the text says which."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One comparison of a field with constants: what it answers is all that the rule learns of the field.

    Only constants of the field's own type (see `comparable`): to others every value compares alike.
    """

    operator: str
    """`==`, `<`, `<=`, `>`, `>=`; `in`: one of several constants; `has`: the flag set contains it."""
    constants: tuple[Any, ...]


def comparable(one: InlineField, constant: Any) -> bool:
    """Whether a constant has the type of the field's values."""
    if isinstance(one.wire, Boolean):
        return isinstance(constant, bool)
    return _is_number(constant) if isinstance(one.wire, Integer) else isinstance(constant, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Use:
    """How rules use one field."""

    atoms: frozenset[Atom] = frozenset()
    whole: str = ""
    """Where it is used otherwise, which only fields with few values may be; empty: nowhere."""

    def __or__(self, other: Use) -> Use:
        """The use of a field by both together."""
        return Use(self.atoms | other.atoms, self.whole or other.whole)


def answers(use: Use) -> Callable[[Any], Hashable]:
    """What all that a rule learns of a field's value is: the same for values that it does not tell apart."""
    if use.whole:
        return json.dumps
    equal: dict[Any, list[int]] = {}
    others: list[tuple[int, Callable[[Any], bool]]] = []
    for number, atom in enumerate(sorted(use.atoms, key=repr)):
        if atom.operator in ("==", "in"):
            for constant in atom.constants:
                equal.setdefault(constant, []).append(number)
        else:
            others.append((number, partial(_TESTS[atom.operator], atom.constants[0])))

    def answer(value: Any) -> Hashable:
        found = equal.get(value, ()) if isinstance(value, Hashable) else ()
        return (*found, *(number for number, test in others if test(value)))

    return answer


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.gt,  # of the constant and the value
    "<=": operator.ge,
    ">": operator.lt,
    ">=": operator.le,
    "has": lambda constant, value: constant in value,
}


@dataclass(frozen=True, slots=True)
class Coding:
    """How the kernel turns a field's 64 bits into a number that it searches: see `krie_field_table`."""

    flip: int = 0
    mask: int = _TOP
    rest: int = 0

    def number(self, value: int) -> int:
        """The same in Python."""
        value = (value & _TOP) ^ self.flip
        return (value & self.mask) | (_REST if value & self.rest else 0)


@dataclass(frozen=True, slots=True)
class Cell:
    """Values that no rule tells apart."""

    value: Json
    """One of them, as rules see it."""
    ranges: tuple[tuple[int, int], ...]
    """All of them as the kernel numbers them: first and last. The first cell also has the numbers that none names."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers that the kernel knows text and executables by."""

    names: dict[bytes, int] = field(default_factory=dict)
    """Grows as rules name more: see `krie_names`."""
    files: Mapping[Identity, int] = field(default_factory=dict)
    """Of the executables: see `krie_programs`."""
    programs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Those of the executables with this name in data.executables."""

    def following(self, programs: Mapping[Identity, str]) -> Numbers:
        """For another policy: what had a number keeps it, so that tables of both can be in use."""
        taken = set(self.files.values())
        fresh = (number for number in count(1) if number not in taken)
        files = {file: self.files.get(file) or next(fresh) for file in programs}
        named: dict[str, tuple[int, ...]] = {}
        for file, name in programs.items():
            named[name] = (*named.get(name, ()), files[file])
        return Numbers(dict(self.names), files, named)

    def name(self, text: bytes) -> int:
        """The number of a text, a new one if it had none."""
        if text not in self.names:
            taken = set(self.names.values())
            self.names[text] = next(number for number in count(1) if number not in taken)
        return self.names[text]

    def forget_names_but(self, used: Container[int]) -> None:
        """Drop the texts that no table compares with."""
        for text, number in list(self.names.items()):
            if number not in used:
                del self.names[text]


def cells(one: InlineField, use: Use, numbers: Numbers) -> tuple[Coding, tuple[Cell, ...]]:
    """Cut the field's domain. Raises `NotDecidable`."""
    coding, pieces = _pieces(one, use, numbers)
    if use.whole:
        return coding, tuple(pieces)
    groups: dict[Hashable, list[Cell]] = {}
    answer = answers(use)
    for piece in pieces:
        groups.setdefault(answer(piece.value), []).append(piece)
    return coding, tuple(
        Cell(group[0].value, tuple(each for piece in group for each in piece.ranges)) for group in groups.values()
    )


def is_finite(one: InlineField) -> bool:
    """Whether all values can be tried, so that rules may do with the field what they like."""
    wire = one.wire
    return wire is None or isinstance(wire, Boolean | Choice | FlagSet)


def _pieces(one: InlineField, use: Use, numbers: Numbers) -> tuple[Coding, Sequence[Cell]]:
    wire = one.wire
    if wire is None:
        return Coding(), _programs(numbers)
    if isinstance(wire, Boolean):
        return Coding(), (Cell(False, ((0, 0),)), Cell(True, ((1, _TOP),)))
    if isinstance(wire, Choice):
        known = sorted(wire.names.items())
        return Coding(), (Cell("other", ()), *(Cell(name, ((number, number),)) for number, name in known))
    if isinstance(wire, FlagSet):
        return _flags(wire, use)
    if isinstance(wire, Chars):
        return Coding(), tuple(_names(wire, use, numbers))
    if isinstance(wire, Integer):
        return _integers(wire, use)
    raise NotDecidable(f"{one} is not a number, text or flag")


def _programs(numbers: Numbers) -> Sequence[Cell]:
    named = ((name, tuple((number, number) for number in ids)) for name, ids in sorted(numbers.programs.items()))
    return (Cell("", ()), *(Cell(name, ranges) for name, ranges in named))


def _names(wire: Chars, use: Use, numbers: Numbers) -> Iterator[Cell]:
    constants = {each for atom in use.atoms for each in atom.constants if isinstance(each, str)}
    other = "any other"
    while other in constants:
        other += "!"
    yield Cell(other, ())
    for text in sorted(constants):
        raw = bytes_of(text)
        if raw is None:
            continue  # no C string decodes to it
        if len(raw) >= min(wire.count, NAME_BYTES) - 1:
            raise NotDecidable(f"{text!r} fills the field's {wire.count} bytes, so a longer text would look the same")
        yield Cell(text, ((numbers.name(raw),) * 2,))


def _flags(wire: FlagSet, use: Use) -> tuple[Coding, Sequence[Cell]]:
    named = {name: bit for bit, name in wire.names.items()}
    asked = {each for atom in use.atoms for each in atom.constants if atom.operator == "has"}
    whole = use.whole or any(atom.operator != "has" for atom in use.atoms)
    counted = {name: bit for name, bit in named.items() if whole or name in asked}
    if len(counted) > _MOST_BITS:
        raise NotDecidable(f"{len(counted)} flags have too many combinations")
    known = sum(named.values())
    unknown = whole or "unknown_bits" in asked
    rest = ~known & ((1 << 8 * WIDTHS[wire.code]) - 1) if unknown else 0
    found = []
    for size in range(len(counted) + 1):
        for chosen in combinations(sorted(counted), size):
            number = sum(counted[name] for name in chosen)
            found.append(Cell(list(chosen), ((number, number),)))
            if unknown:
                found.append(Cell([*chosen, "unknown_bits"], ((number | _REST,) * 2,)))
    return Coding(0, sum(counted.values()), rest), found


def _integers(wire: Integer, use: Use) -> tuple[Coding, Sequence[Cell]]:
    schema = wire.schema()
    if "minimum" not in schema:
        raise NotDecidable("addresses are text to rules")
    least, most = int(str(schema["minimum"])), int(str(schema["maximum"]))
    cuts = {least}
    for constant in (each for atom in use.atoms for each in atom.constants if _is_number(each)):
        cuts.update(cut for cut in (math.ceil(constant), math.floor(constant) + 1) if least < cut <= most)
    starts = sorted(cuts)
    ends = [*(start - 1 for start in starts[1:]), most]
    coding = Coding(flip=_SIGN if least < 0 else 0)
    return coding, [
        Cell(start, ((coding.number(start), coding.number(end)),)) for start, end in zip(starts, ends, strict=True)
    ]


def all_constants(uses: Iterable[Use]) -> frozenset[Any]:
    """Every constant that any atom names: what random events should be near to."""
    return frozenset(
        each for use in uses for atom in use.atoms for each in atom.constants if isinstance(each, int | float | str)
    )
