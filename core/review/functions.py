"""What a rule is for events of one kind: a function of the fields that it compares with constants, where it is one.

The theorem is that of `krie.tier.classify`; here fields count that programs in the kernel do not know, too, and rules
that only log. A rule that is no such function has the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ..errors import PolicyError
from ..events.event import EventType
from ..events.inline import PROCESS_FIELDS, InlineField, NamePath
from ..events.wire import Bitmap, Boolean, Bytes, Chars, Integer, WireType
from ..policy.definition import Definition, Node, text_at
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Rule
from ..policy.module import LOG_PACKAGE
from ..tier.classify import Classifier
from ..tier.columns import Column
from ..tier.domain import Cell, NotDecidable, Numbers, Use, answers, cells
from .diagram import Firing

MOST_EVALUATIONS = 20_000
"""For one rule and kind."""
_PLACES = frozenset({"span", "line", "col", "start", "end", "eidx"})
_PATH = Chars(1 << 16)
_PROCESS: Mapping[str, WireType | None] = {**PROCESS_FIELDS, "comm": Chars(16), "exe": _PATH, "exe_known": Boolean()}
_BRIEF: Mapping[str, WireType | None] = {"program": None, "comm": Chars(16), "exe": _PATH, "exe_known": Boolean()}
_OTHER: Mapping[str, WireType | None] = {**_BRIEF, "known": Boolean(), "uid": Integer("I")}


def comparable_fields(event_type: EventType) -> dict[NamePath, InlineField]:
    """All fields of a kind that are numbers, flags, names or short texts."""
    found: list[tuple[NamePath, WireType | None]] = [
        (("event", each.name), each.wire) for each in event_type.own_fields if not isinstance(each.wire, Bytes | Bitmap)
    ]
    for process in event_type.event.PROCESSES:
        found += [(("event", process, name), wire) for name, wire in _OTHER.items()]
    found += [(("process", name), wire) for name, wire in _PROCESS.items()]
    found += [(("process", "parent", name), wire) for name, wire in _BRIEF.items()]
    return {path: InlineField(path, index, wire) for index, (path, wire) in enumerate(found)}


@dataclass(slots=True)
class Functions:
    """The rules of one policy as functions."""

    engine: EmbeddedEngine
    numbers: Numbers

    def uses(self, rule: Rule, event_type: EventType) -> tuple[dict[InlineField, Use], str]:
        """How a rule uses fields, and why it is not a function of them; empty where it is one."""
        fields = comparable_fields(event_type)
        classifier = Classifier(self.engine.analysis, self.engine.sources.data, event_type.name, fields)
        try:
            uses = dict(classifier.rule(rule.package, self.engine.analysis.definition(rule)))
            size = prod(len(cells(field, use, self.numbers)[1]) for field, use in uses.items())
        except NotDecidable as error:
            return dict(classifier.uses.by_field), str(error)
        return uses, f"it has {size} cases" if size > MOST_EVALUATIONS else ""

    def firing(self, rule: Rule, kind: str, uses: Mapping[InlineField, Use]) -> Firing:
        """When it fires: tried for each combination of cells. Raises `PolicyError` where it cannot be evaluated."""
        alone = self.engine.alone
        fields = list(uses)
        domains = [cells(field, uses[field], self.numbers)[1] for field in fields]
        told = [answers(uses[field]) for field in fields]
        hits = set()
        for combination in product(*domains):
            values = [cell.value for cell in combination]
            try:
                fires = alone.fires(rule, json.dumps(with_values({"event": {"kind": kind}}, fields, values)))
            except PolicyError as error:
                raise PolicyError(f"{rule.place}: cannot be evaluated for some input: {error}") from error
            if fires:
                hits.add(tuple(tell(value) for tell, value in zip(told, values, strict=True)))
        return Firing(uses, frozenset(hits))

    def identity(self, rule: Rule, *, head: bool = True) -> object:
        """Equal where two policies say a rule by the same words, about the same data. `head`: id and action too."""
        own = self.engine.analysis.definition(rule)
        return self._said(rule.package, [own], without_head=None if head else own)

    def masking(self) -> object:
        """The same for what decision logs mask and drop."""
        return self._said(LOG_PACKAGE, list(self.engine.analysis.of_package(LOG_PACKAGE)), without_head=None)

    def _said(self, package: str, definitions: list[Definition], without_head: Definition | None) -> object:
        analysis = self.engine.analysis
        texts = []
        for home, each in analysis.reached(package, definitions):
            parts = (each.tree.get("bodies") or []) if each is without_head else [each.tree]
            said_so = tuple((text_at(each.source, part["span"]), json.dumps(_bare(part))) for part in parts)
            texts.append((home, said_so, json.dumps(sorted(analysis.imports(each).items()))))
        data = {
            path: json.dumps(_looked_up(self.engine.sources.data, path), sort_keys=True)
            for path in analysis.documents_of(package, definitions)
        }
        return tuple(sorted(texts)), tuple(sorted(data.items()))


def _bare(tree: Node) -> Node:
    """A tree without places; spans may leave the last quotation mark out, and trees say some names by spans only."""
    if isinstance(tree, dict):
        return {name: _bare(each) for name, each in tree.items() if name not in _PLACES}
    return [_bare(each) for each in tree] if isinstance(tree, list) else tree


def _looked_up(data: Any, path: NamePath) -> Any:
    for name in path:
        if not isinstance(data, dict) or name not in data:
            return None
        data = data[name]
    return [data]


def with_values(document: dict[str, Any], fields: Iterable[InlineField], values: Iterable[Any]) -> dict[str, Any]:
    """A document with these values at the places of the fields; the given one is not changed."""
    made: dict[str, Any] = json.loads(json.dumps(document))
    for field, value in zip(fields, values, strict=True):
        at = made
        for name in field.path[:-1]:
            at = at.setdefault(name, {})
        at[field.path[-1]] = value
    return made


def joint_columns(
    uses: Iterable[Mapping[InlineField, Use]], numbers: Numbers
) -> tuple[tuple[Column, ...], dict[InlineField, Use]]:
    """Columns whose cells no rule of several tells apart, and how all of them use each field. Raises `NotDecidable`."""
    together: dict[InlineField, Use] = {}
    for each in uses:
        for field, use in each.items():
            together[field] = together.get(field, Use()) | use
    columns = tuple(
        Column(field, *cells(field, together[field], numbers), 1)
        for field in sorted(together, key=lambda each: each.index)
    )
    return columns, together


def program_numbers(*names: Iterable[str]) -> Numbers:
    """Numbers for all programs that either policy names."""
    known = sorted({each for some in names for each in some})
    return Numbers(programs={name: (number,) for number, name in enumerate(known, 1)})


def said(column: Column, use: Use, chosen: frozenset[int]) -> str:
    """The condition that a field's value is in these cells; empty where any value is."""
    name = ".".join(column.field.path)
    name = name.removeprefix("event.")
    if len(chosen) == len(column.cells):
        return ""
    own = [column.cells[each] for each in sorted(chosen)]
    others = [cell for number, cell in enumerate(column.cells) if number not in chosen]
    wire = column.field.wire
    if isinstance(wire, Boolean):
        return name if own[0].value else f"not {name}"
    if isinstance(wire, Integer):
        return f"{name} {_numbers(own, column.coding.flip)}"
    if isinstance(own[0].value, list):
        return _flags(name, use, own, others)
    rest = isinstance(wire, Chars) and 0 in chosen
    if rest or len(own) > len(others):
        return _texts(name, others, negated=True)
    return _texts(name, own, negated=False)


def _texts(name: str, values: list[Cell], *, negated: bool) -> str:
    shown = sorted({json.dumps(text, ensure_ascii=False) for each in values for text in (each.value,)})
    if len(shown) == 1:
        return f"{name} {'!=' if negated else '=='} {shown[0]}"
    return f"{name} {'not in' if negated else 'in'} {{{', '.join(shown)}}}"


def _numbers(values: list[Cell], flip: int) -> str:
    def decoded(number: int) -> int:
        return number - flip if flip else number

    ranges: list[tuple[int, int]] = []
    for first, last in sorted((decoded(first), decoded(last)) for each in values for first, last in each.ranges):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], max(last, ranges[-1][1])
        else:
            ranges.append((first, last))
    parts = [str(first) if first == last else f"{first}..{last}" for first, last in ranges]
    return f"== {parts[0]}" if len(parts) == 1 and ".." not in parts[0] else f"in {', '.join(parts)}"


def _flags(name: str, use: Use, own: list[Cell], others: list[Cell]) -> str:
    asked = sorted({text for atom in use.atoms if atom.operator == "has" for text in atom.constants})
    if not use.whole and all(atom.operator == "has" for atom in use.atoms):
        inside = {frozenset(text for text in asked if text in _list(cell)) for cell in own}
        every = inside | {frozenset(text for text in asked if text in _list(cell)) for cell in others}
        needed = [text for text in asked if all(text in each for each in inside)]
        refused = [text for text in asked if not any(text in each for each in inside)]
        if {each for each in every if set(needed) <= each and not each & set(refused)} == inside:
            return " and ".join(
                [*(f"{text} in {name}" for text in needed), *(f"{text} not in {name}" for text in refused)]
            )
    shown = [f"[{', '.join(_list(each))}]" for each in own]
    if len(own) <= len(others):
        return f"{name} {'like ' if not use.whole else ''}{' or '.join(shown)}"
    shown = [f"[{', '.join(_list(each))}]" for each in others]
    return f"{name} not {'like ' if not use.whole else ''}{' nor '.join(shown)}"


def _list(cell: Cell) -> list[str]:
    return list(map(str, cell.value)) if isinstance(cell.value, list) else []
