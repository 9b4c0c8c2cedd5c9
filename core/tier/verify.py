"""Proof by trying: random records, decided by the engine, and looked up in the tables from the same bytes.

A disagreement is shrunk to the smallest record that shows it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from ..events.event import EventType
from ..events.table_layout import Table
from .draw import Parts, Records
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


@dataclass(frozen=True, slots=True)
class Verified:
    """What was tried, and the disagreements."""

    tried: Mapping[str, int]
    """Records by kind."""
    decided: Mapping[str, int]
    """Of them those for which a rule fired."""
    disagreements: tuple[Disagreement, ...]


def verify(subject: Subject, look_ups: Mapping[str, LookUp], *, events: int, start: int = 0) -> Verified:
    """Draw records and compare; `events`: how many, all kinds together; `start`: seed. `look_ups` by name.

    Of each kind the first disagreement is told.
    """
    kinds = [each for each in subject.types if subject.has(each)]
    tried: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    found = []
    for event_type in kinds:
        records = Records(subject, event_type)
        compare = partial(_compared, subject, look_ups, event_type, records)
        random = Random(f"{start} {event_type.name}")  # noqa: S311 - nobody is to be kept from guessing them
        for _ in range(max(1, events // len(kinds))):
            parts = records.draw(random)
            wanted, differs = compare(parts)
            tried[event_type.name] += wanted is not None
            decided[event_type.name] += bool(wanted)
            if differs is not None:
                found.append(_shrunk(records, parts, compare) or differs)
                break
    return Verified(tried, decided, tuple(found))


def _shrunk(
    records: Records, parts: Parts, compare: Callable[[Parts], tuple[str | None, Disagreement | None]]
) -> Disagreement | None:
    return compare(records.shrunk(parts, lambda fewer: compare(fewer)[1] is not None))[1]


def _compared(
    subject: Subject, look_ups: Mapping[str, LookUp], event_type: EventType, records: Records, parts: Parts
) -> tuple[str | None, Disagreement | None]:
    """What the engine decides, None where it cannot; and the first look-up that differs."""
    raw = records.whole(parts)
    document = subject.document(event_type, raw)
    wanted = subject.decided(event_type, document)
    if wanted is None:
        return None, None
    for by, look in look_ups.items():
        number, generation = look(event_type, raw)
        name = subject.rules[number] if number < len(subject.rules) else f"rule number {number}"
        name = name if generation == GENERATION else f"{name} of generation {generation}"
        if name != wanted:
            return wanted, Disagreement(by, event_type.name, document, wanted, name)
    return wanted, None


def python_look_up(subject: Subject, tables: Mapping[int, bytes]) -> LookUp:
    """The look-up in Python, from the bytes that the kernel gets."""
    decoded = {kind: Table.decode(table) for kind, table in tables.items()}
    return lambda event_type, raw: look_up(decoded[event_type.kind], event_type, raw, subject.numbers)
