"""The kernel's part of a policy: for each kind of event a table from its fields' cells to what is done.

Made by evaluating the real rules with the real engine, once for each combination of cells of the fields that a rule
reads. A rule for which that is not possible stays with user space, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol

from ..decision import Action, FiredRule, Scope, merge
from ..errors import PolicyError
from ..events.inline import InlineField
from ..events.table_layout import ROWS
from ..policy.engine import Rule
from .columns import Column, too_big
from .domain import NotDecidable, Numbers, Use, answers, cells

EVALUATIONS = ROWS
"""Most evaluations for one kind."""
Uses = Mapping[InlineField, Use]
Combination = tuple[Any, ...]


class Alone(Protocol):
    """Evaluates one rule: `RulesAlone`."""

    def fires(self, rule: Rule, document: str) -> bool:
        """Whether it fires for the input. Raises `PolicyError`."""


@dataclass(frozen=True, slots=True)
class KindTable:
    """The table of one kind, before rules have numbers and any of them is held back."""

    kind: str
    columns: tuple[Column, ...]
    rows: Mapping[int, tuple[Rule, ...]]
    """The rules that fire; rows where none does are left out."""
    rules: tuple[Rule, ...]
    evaluations: int

    def outcomes(self, only_refuse: frozenset[str]) -> Iterator[tuple[int, tuple[Rule, FiredRule]]]:
        """For each row the strongest rule, with what all rules together ask for. `only_refuse`: rules that may do no
        more than refuse."""
        for row, rules in self.rows.items():
            asking = {rule.id: rule for rule in rules}
            fired = [rule.fired for rule in rules if rule.id not in only_refuse]
            fired = fired or [rule.fired.refusing() for rule in rules]
            merged = merge(fired, tier="kernel", revision="")
            first = next(each for each in merged.rules if each.action == merged.action)
            asked = FiredRule(first.id, merged.action, merged.scope, merged.errno, merged.ttl_s)
            yield row, (asking[first.id], asked)


class Builder:
    """Builds the table of one kind; `left_out` says why a rule is not in it."""

    def __init__(self, kind: str, numbers: Numbers, alone: Alone) -> None:
        """`numbers` grows by the texts that the rules name."""
        self._kind, self._numbers, self._alone = kind, numbers, alone
        self.left_out: dict[str, str] = {}

    def build(self, candidates: Mapping[str, tuple[Rule, Uses]]) -> KindTable:
        """`candidates`: rules by id, with how they use the kind's fields."""
        sizes: dict[str, int] = {}
        for name, (_, uses) in candidates.items():
            try:
                sizes[name] = prod(len(cells(field, use, self._numbers)[1]) for field, use in uses.items())
            except NotDecidable as error:
                self.left_out[name] = str(error)
        # Those whose METADATA demand it come first; of the others those that cost least.
        order = sorted(sizes, key=lambda name: (not candidates[name][0].metadata.inline, sizes[name], name))
        spent, kept = 0, {}
        for name in order:
            if spent + sizes[name] > EVALUATIONS:
                self.left_out[name] = (
                    f"needs {sizes[name]} evaluations; {EVALUATIONS - spent} of {EVALUATIONS} are left"
                )
                continue
            spent += sizes[name]
            kept[name] = candidates[name]
        while why := too_big(self._columns(kept)):
            name, _ = kept.popitem()
            self.left_out[name] = f"with the other rules of {self._kind} it needs {why}"
        hits = {name: self._hits(rule, uses) for name, (rule, uses) in kept.items()}
        kept = {name: each for name, each in kept.items() if name not in self.left_out}
        return self._table(kept, hits, spent)

    def _columns(self, kept: Mapping[str, tuple[Rule, Uses]]) -> tuple[Column, ...]:
        together: dict[InlineField, Use] = {}
        for _, uses in kept.values():
            for field, use in uses.items():
                together[field] = together.get(field, Use()) | use
        columns, stride = [], 1
        for field in sorted(together, key=lambda each: each.index):
            coding, found = cells(field, together[field], self._numbers)
            columns.append(Column(field, coding, found, stride))
            stride *= len(found)
        return tuple(columns)

    def _hits(self, rule: Rule, uses: Uses) -> frozenset[Combination]:
        """The combinations of answers for which the rule fires."""
        fields = list(uses)
        domains = [cells(field, uses[field], self._numbers)[1] for field in fields]
        told = [answers(uses[field]) for field in fields]
        found = set()
        for combination in product(*domains):
            document = _document(self._kind, fields, [cell.value for cell in combination])
            try:
                fires = self._alone.fires(rule, document)
            except PolicyError as error:
                self.left_out[rule.id] = f"{rule.place}: cannot be evaluated for {document}: {error}"
                return frozenset()
            if fires:
                found.add(tuple(tell(cell.value) for tell, cell in zip(told, combination, strict=True)))
        return frozenset(found)

    def _table(
        self, kept: Mapping[str, tuple[Rule, Uses]], hits: Mapping[str, frozenset[Combination]], spent: int
    ) -> KindTable:
        columns = self._columns(kept)
        rows: dict[int, list[Rule]] = {}
        for name, (rule, uses) in kept.items():
            for row in _rows(columns, uses, hits[name]):
                rows.setdefault(row, []).append(rule)
        rules = tuple(rule for _, (rule, _) in sorted(kept.items()))
        return KindTable(self._kind, columns, {row: tuple(each) for row, each in rows.items()}, rules, spent)


def _rows(columns: Iterable[Column], uses: Uses, hits: frozenset[Combination]) -> Iterator[int]:
    """The rows that are hit; fields that the rule does not read may have any cell."""
    parts: list[dict[Any, list[int]]] = []
    for column in columns:
        tell = answers(uses[column.field]) if column.field in uses else None
        part: dict[Any, list[int]] = {}
        for number, cell in enumerate(column.cells):
            part.setdefault(tell(cell.value) if tell is not None else None, []).append(number * column.stride)
        parts.append(part)
    places = {field: place for place, field in enumerate(uses)}
    for hit in hits:
        choices = [
            part[hit[places[column.field]]] if column.field in places else part[None]
            for column, part in zip(columns, parts, strict=True)
        ]
        yield from (sum(steps) for steps in product(*choices))


def _document(kind: str, fields: Iterable[InlineField], values: Iterable[Any]) -> str:
    """The input with these fields only: the rule reads no others."""
    document: dict[str, dict[str, Any]] = {"event": {"kind": kind}, "process": {}}
    for field, value in zip(fields, values, strict=True):
        part, name = field.path
        document[part][name] = value
    return json.dumps(document)


def binds_here(rule: Rule) -> str:
    """Why what a rule asks for is nothing that a program in the kernel does; empty where it can."""
    if rule.fired.action < Action.OVERRIDE:
        return f"only {rule.action}s: nothing is to be done before the record arrives"
    if rule.fired.scope is Scope.HOST:
        return "scope host is brought into force by the agent"
    return ""
