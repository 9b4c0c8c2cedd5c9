"""Proof by trying: random records, decided by the engine, and looked up in the tables from the same bytes.

What is drawn is near to what the rules compare with: their constants, the neighbours of these, the ends of each type,
values that have no name, text that fills its field. A disagreement is shrunk to the smallest record that shows it.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ..event import EventType
from ..inline import inline_fields
from ..layout import Field
from ..process import Identity
from ..wire import WIDTHS, Bitmap, Boolean, Bytes, Chars, Choice, FlagSet, bytes_of
from .domain import all_constants
from .subject import GENERATION, Subject
from .table_bytes import look_up

LookUp = Callable[[EventType, bytes], tuple[int, int]]
"""Number of the rule and of the generation that a record finds."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The smallest record for which engine and table differ."""

    by: str
    """Whose look-up it was."""
    kind: str
    document: dict[str, Any]
    engine: str
    table: str
    """Ids of the rules that both found; empty: none."""

    def as_rego(self, in_kernel: frozenset[str]) -> str:
        """The same as a test that fails until the table agrees: the engine's answer is the meaning of the policy."""
        document = json.dumps(self.document, indent="\t")
        return (
            f"# {self.by} finds {self.table or 'no rule'}, and the engine {self.engine or 'none'}\n"
            "test_disagreement if {\n"
            f"\tids := {{rule.id | some rule in data.krie[_].rules}} with input as {document}\n"
            f"\tids & {json.dumps(sorted(in_kernel)).replace('[', '{').replace(']', '}')} "
            f"== {{{json.dumps(self.engine) if self.engine else ''}}}\n}}\n"
        )


class _Differs(Exception):
    def __init__(self, found: Disagreement) -> None:
        self.found = found
        super().__init__(str(found))


@dataclass(frozen=True, slots=True)
class Verified:
    """What was tried, and the disagreements."""

    tried: Mapping[str, int]
    """Records by kind."""
    decided: Mapping[str, int]
    """Of them those for which a rule fired."""
    disagreements: tuple[Disagreement, ...]


def verify(subject: Subject, look_ups: Mapping[str, LookUp], *, events: int, start: int = 0) -> Verified:
    """Draw records and compare; `events`: how many, all kinds together; `start`: seed. `look_ups` by name."""
    kinds = [each for each in subject.types if subject.has(each)]
    tried: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    found = []
    for event_type in kinds:
        compare = partial(_compare, subject, look_ups, event_type, tried, decided)
        try:
            _run(compare, records(subject, event_type), max(1, events // len(kinds)), start)
        except _Differs as error:
            found.append(error.found)
    return Verified(tried, decided, tuple(found))


def _compare(
    subject: Subject,
    look_ups: Mapping[str, LookUp],
    event_type: EventType,
    tried: Counter[str],
    decided: Counter[str],
    raw: bytes,
) -> None:
    document = subject.document(event_type, raw)
    wanted = subject.decided(event_type, document)
    if wanted is None:
        return
    tried[event_type.name] += 1
    decided[event_type.name] += bool(wanted)
    for by, look in look_ups.items():
        number, generation = look(event_type, raw)
        name = subject.rules[number] if number < len(subject.rules) else f"rule number {number}"
        name = name if generation == GENERATION else f"{name} of generation {generation}"
        if name != wanted:
            raise _Differs(Disagreement(by, event_type.name, document, wanted, name))


def _run(compare: Callable[[bytes], None], drawn: st.SearchStrategy[bytes], events: int, start: int) -> None:
    phases = (Phase.generate, Phase.shrink)
    quiet = settings(
        max_examples=events, database=None, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
    )

    def test(raw: bytes) -> None:
        compare(raw)

    seed(start)(quiet(given(drawn)(test)))()


def python_look_up(subject: Subject, tables: Mapping[int, bytes]) -> LookUp:
    """The look-up in Python, from the bytes that the kernel gets."""
    return lambda event_type, raw: look_up(tables[event_type.kind], event_type, raw, subject.numbers)


def records(subject: Subject, event_type: EventType) -> st.SearchStrategy[bytes]:
    """Bytes of whole records of a kind."""
    uses = {
        each.path: use
        for placement in subject.tiers.placements
        if placement.kind == event_type.name
        for each, use in placement.uses.items()
    }
    inline = inline_fields(event_type)
    files = sorted(subject.numbers.files)

    def drawn(each: Field) -> st.SearchStrategy[bytes]:
        part = "event" if ("event", each.name) in inline else "process"
        use = uses.get((part, each.name))
        constants = sorted(all_constants([use] if use is not None else []), key=repr)
        return _field(each, constants)

    fields = [each for each in event_type.layout.data_fields if each.inline or each.name == "context"]
    parts = st.tuples(*(drawn(each) for each in fields))
    known = st.sampled_from(files) if files else st.nothing()
    near = known.map(lambda file: Identity(file.dev, file.ino, file.generation ^ 1))
    file = st.one_of(
        known, near, st.just(Identity(0, 0, 0)), st.builds(Identity, *(st.integers(1, 9) for _ in range(3)))
    )

    def whole(values: tuple[bytes, ...], exe: Identity) -> bytes:
        raw = bytearray(event_type.layout.size)
        struct.pack_into("=HHI", raw, 0, event_type.kind, event_type.version, len(raw))
        places = {each.name: each for each in event_type.layout.data_fields}
        for each, value in zip(fields, values, strict=True):
            raw[each.offset : each.offset + each.size] = value
        for name, number in (("exe_dev", exe.dev), ("exe_ino", exe.ino), ("exe_generation", exe.generation)):
            struct.pack_into("=" + places[name].wire.code, raw, places[name].offset, number)
        return bytes(raw)

    return st.builds(whole, parts, file)


def _field(each: Field, constants: Sequence[Any]) -> st.SearchStrategy[bytes]:
    wire = each.wire
    if isinstance(wire, Chars):
        texts = [raw for text in constants if isinstance(text, str) and (raw := bytes_of(text)) is not None]
        return _text(texts, each.size)
    assert not isinstance(wire, Bitmap | Bytes)
    bits = 8 * WIDTHS[wire.code]
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if wire.code.islower() else (0, (1 << bits) - 1)
    exact, special = set[int](), {least, most, 0, 1}
    if isinstance(wire, Boolean):
        special = {0, 1, 2, most}
    elif isinstance(wire, Choice | FlagSet):
        exact = {number for number, name in wire.names.items() if name in constants}
        special |= {near for number in wire.names for near in (number, number + 1)} | {sum(wire.names) & most}
    else:
        exact = {int(constant) for constant in constants if isinstance(constant, int | float)}
        special |= {constant + step for constant in exact for step in (-1, 1)}
    numbers = _near(exact, special, st.integers(least, most), lambda number: least <= number <= most)
    return numbers.map(lambda number: struct.pack("=" + wire.code, number))


def _near(
    exact: Iterable[Any], special: Iterable[Any], free: st.SearchStrategy[Any], fits: Callable[[Any], bool]
) -> st.SearchStrategy[Any]:
    """Constants of the rules, what lies beside them, and anything: each as often as the others."""
    lists = [sorted(filter(fits, each)) for each in (exact, special)]
    return st.one_of(*(st.sampled_from(each) for each in lists if each), free)


def _text(constants: Sequence[bytes], size: int) -> st.SearchStrategy[bytes]:
    def near(text: bytes) -> Iterator[bytes]:
        yield from (text + b"x", text[:-1], text.swapcase(), b"\\" + text)

    special = [each for text in constants for each in near(text)] + [b"", b"a" * (size - 1)]
    free = st.binary(max_size=size - 1).map(lambda raw: raw.replace(b"\0", b"."))
    return _near(constants, special, free, lambda text: len(text) < size).map(lambda raw: raw.ljust(size, b"\0"))
