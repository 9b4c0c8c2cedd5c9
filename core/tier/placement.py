"""Which tier each rule has, and the kernel's tables of those that have the kernel's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import PolicyError
from ..events.event import EventType
from ..events.inline import InlineField, inline_fields
from ..events.wire import Chars
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Rule
from .classify import Classifier
from .domain import NotDecidable, Numbers, Use
from .tables import Builder, KindTable, binds_here

Obstacle = Callable[[str, Rule], str]
"""Why no probe of a kind can carry out what a rule asks for; empty where one can."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one rule is decided for events of one kind."""

    rule: Rule
    kind: str
    why: str
    """Why user space decides; empty: the kernel does."""
    uses: Mapping[InlineField, Use]
    """How it uses the inline fields, as far as that is known."""

    @property
    def tier(self) -> str:
        """`kernel` or `user`."""
        return "user" if self.why else "kernel"


@dataclass(frozen=True, slots=True)
class Tiers:
    """All placements and tables of one policy."""

    placements: tuple[Placement, ...] = ()
    tables: Mapping[str, KindTable] = field(default_factory=dict)

    def in_kernel(self, kind: str) -> frozenset[str]:
        """Ids of the rules that the kernel decides for this kind."""
        table = self.tables.get(kind)
        return frozenset(rule.id for rule in table.rules) if table is not None else frozenset()


def find_tiers(
    engine: EmbeddedEngine,
    types: Iterable[EventType],
    numbers: Numbers,
    able: Obstacle,
) -> Tiers:
    """Classify all rules and build the tables.

    `types`: the kinds that programs send. Raises `PolicyError` for a rule with `enforce: inline` that cannot be.
    """
    placements: dict[tuple[str, str], Placement] = {}
    tables: dict[str, KindTable] = {}
    rules = engine.rules
    alone = engine.alone
    for event_type in types:
        kind = event_type.name
        candidates: dict[str, tuple[Rule, Mapping[InlineField, Use]]] = {}
        for rule in (each for each in rules if each.concerns(kind)):
            uses: Mapping[InlineField, Use] = {}
            why = binds_here(rule) or able(kind, rule)
            if not why or rule.metadata.inline:
                uses, unclear = _classified(engine, rule, event_type)
                why = why or unclear
            placements[rule.id, kind] = Placement(rule, kind, why, uses)
            if not why:
                candidates[rule.id] = rule, uses
        if candidates:
            builder = Builder(kind, numbers, alone)
            tables[kind] = builder.build(candidates)
            for name, why in builder.left_out.items():
                placements[name, kind] = Placement(candidates[name][0], kind, why, candidates[name][1])
    columns = [column for table in tables.values() for column in table.columns]
    texts = [column for column in columns if isinstance(column.field.wire, Chars)]
    numbers.forget_names_but({first for each in texts for cell in each.cells for first, _ in cell.ranges})
    for each in placements.values():
        if each.rule.metadata.inline and each.why:
            raise PolicyError(f"{each.rule.place}: rule {each.rule.id} demands `enforce: inline`, and {each.why}")
    return Tiers(tuple(each for _, each in sorted(placements.items())), tables)


def _classified(engine: EmbeddedEngine, rule: Rule, event_type: EventType) -> tuple[Mapping[InlineField, Use], str]:
    classifier = Classifier(engine.analysis, engine.sources.data, event_type.name, inline_fields(event_type))
    try:
        return classifier.rule(rule.package, engine.analysis.definition(rule)), ""
    except NotDecidable as error:
        return classifier.uses.by_field, str(error)
