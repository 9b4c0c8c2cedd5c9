"""What differs between two policies: for which inputs which rules answer otherwise, and what else is said of them.

Of rules that are functions of the fields they compare, the answer is exact and complete. Others are tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from random import Random
from typing import Any

from ..errors import PolicyError
from ..events.event import EventType
from ..events.inline import InlineField
from ..events.wire import Json
from ..policy.engine import Package, Partly, Rule
from ..policy.metadata import Metadata
from ..policy.module import LOG_PACKAGE
from ..tier.columns import Column
from ..tier.domain import NotDecidable, Use
from .cases import Case, Difference, Note, State
from .compared import asked
from .diagram import Firing, Pair, Row, TooLarge, difference
from .functions import joint_columns, said, with_values
from .near import Draw, constants, input_schema, plain
from .sides import Side

_LEAST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Rows:
    """What the exact comparison of one kind found."""

    columns: tuple[Column, ...]
    rows: list[Row]
    uses: Mapping[InlineField, Use]
    """How the rules use the fields, all together."""
    left_out: Mapping[str, str]
    """Rules that it could not compare, with the reason."""


@dataclass(slots=True)
class Comparer:
    """Compares two policies, which must have been tried before."""

    old: Side
    new: Side
    types: Sequence[EventType]
    facts: Mapping[str, Mapping[str, Json]]
    tries: int = 2000
    seed: int = 0
    note: Callable[[str], object] = str
    """Is told what is looked at next."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Old ids by new ones."""
    _tried: dict[str, str] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _tries: int = 0

    def compare(self) -> Difference:
        """Everything that differs."""
        self.renamed = self._renames()
        changed = self._changed()
        cases: list[Case] = []
        for event_type in self.types:
            concerned = [
                name
                for name in changed
                if any(rule is not None and rule.concerns(event_type.name) for rule in self._rules(name))
            ]
            if concerned:
                cases += self._cases(event_type, concerned)
        exact = tuple(name for name in changed if name not in self._tried)
        return Difference(
            tuple(cases), tuple(self._notes()), exact, self._tried, self._tries, tuple(dict.fromkeys(self._problems))
        )

    def _rules(self, name: str) -> tuple[Rule | None, Rule | None]:
        """A rule in both policies, by its new id where it has another one."""
        return self.old.rule(self.renamed.get(name, name)), self.new.rule(name)

    def _changed(self) -> list[str]:
        """Rules that are not said by the same words, and what those mean."""
        names = {rule.id for rule in self.new.engine.rules}
        names |= {rule.id for rule in self.old.engine.rules} - set(self.renamed.values())
        found = []
        for name in sorted(names):
            old, new = self._rules(name)
            if (
                old is None
                or new is None
                or self._answer(old) != self._answer(new)
                or self.old.functions.identity(old, head=False) != self.new.functions.identity(new, head=False)
            ):
                found.append(name)
        return found

    def _renames(self) -> dict[str, str]:
        """Rules that have another id and are said by the same words otherwise."""
        mine = {rule.id for rule in self.old.engine.rules}
        theirs = {rule.id for rule in self.new.engine.rules}
        gone: dict[object, list[Rule]] = {}
        for rule in self.old.engine.rules:
            if rule.id not in theirs:
                key = (self._answer(rule), self.old.functions.identity(rule, head=False))
                gone.setdefault(key, []).append(rule)
        found = {}
        for rule in self.new.engine.rules:
            if rule.id not in mine:
                same = gone.get((self._answer(rule), self.new.functions.identity(rule, head=False)), [])
                if len(same) == 1:
                    found[rule.id] = same.pop().id
        return found

    @staticmethod
    def _answer(rule: Rule) -> tuple[Any, ...]:
        return tuple(rule.fired[1:])

    def rows(self, event_type: EventType, names: list[str]) -> Rows:
        """All inputs of a kind for which any of these rules answers otherwise, as far as that is decidable."""
        pairs, uses, left_out = [], [], {}
        for name in names:
            pair = self._pair(event_type, name)
            if isinstance(pair, str):
                left_out[name] = pair
            else:
                pairs.append(pair)
                uses += [each.uses for each in (pair.old, pair.new) if each is not None]
        try:
            columns, together = joint_columns(uses, self.new.functions.numbers)
            return Rows(*difference(pairs, columns), together, left_out)
        except (NotDecidable, TooLarge) as error:
            why = str(error) or "the comparison needs too much memory"
            return Rows((), [], {}, {**left_out, **{each.rule: why for each in pairs}})

    def _cases(self, event_type: EventType, names: list[str]) -> Iterable[Case]:
        found = self.rows(event_type, names)
        schema = input_schema(event_type, self.facts.get(event_type.name, {}))
        for row in found.rows:
            chosen = list(zip(found.columns, row.cells, strict=True))
            when = [said(column, found.uses[column.field], cells) for column, cells in chosen]
            values = [column.cells[min(cells)].value for column, cells in chosen]
            witness = with_values(plain(schema), [column.field for column in found.columns], values)
            case = self._case(event_type, tuple(filter(None, when)), row.leaf, witness, exact=True)
            self._prove(case)
            yield case
        for name, why in found.left_out.items():
            self._tried.setdefault(name, f"{event_type.name}: {why}")
        if found.left_out:
            yield from self._try(event_type, sorted(found.left_out))

    def _pair(self, event_type: EventType, name: str) -> Pair | str:
        self.note(f"at {name} for events of {event_type.name}")
        firings: list[Firing | None] = []
        for side, rule in zip((self.old, self.new), self._rules(name), strict=True):
            if rule is None or not rule.concerns(event_type.name):
                firings.append(None)
                continue
            uses, why = side.functions.uses(rule, event_type)
            if why:
                return why
            try:
                firings.append(side.functions.firing(rule, event_type.name, uses))
            except PolicyError as error:
                return str(error)
        old, new = self._rules(name)
        same = old is not None and new is not None and self._answer(old) == self._answer(new)
        return Pair(name, firings[0], firings[1], same)

    def _case(
        self,
        event_type: EventType,
        when: tuple[str, ...],
        leaf: Iterable[tuple[str, State, State]],
        witness: dict[str, Any],
        *,
        exact: bool,
    ) -> Case:
        rules = {}
        for name, *states in leaf:
            old, new = (_said(rule, state) for rule, state in zip(self._rules(name), states, strict=True))
            rules[name] = old, new
        return Case(
            event_type.name, when, rules, witness, self.old.decide(witness), self.new.decide(witness), exact=exact
        )

    def _prove(self, case: Case) -> None:
        """The engine must say of the witness what the diagrams say of all inputs like it."""
        for name, said_of in case.rules.items():
            for side, rule, decision, expected in zip(
                ("old", "new"), self._rules(name), (case.old, case.new), said_of, strict=True
            ):
                fired = rule is not None and any(each.id == rule.id for each in decision.rules)
                if fired != bool(expected):
                    if decision.error:
                        self._problems.append(f"{name}, {side} policy: {decision.error}")
                        continue
                    raise PolicyError(
                        f"{name}: KRIe's comparison and the engine disagree about the {side} policy for "
                        f"{json.dumps(case.witness)}; this is a bug in KRIe"
                    )

    def _try(self, event_type: EventType, names: list[str]) -> Iterable[Case]:
        schema = input_schema(event_type, self.facts.get(event_type.name, {}))
        for name in names:
            self.note(f"at {name} for events of {event_type.name}, tried")
            old, new = self._rules(name)
            near: dict[str, Any] = {}
            paths: set[tuple[str, ...]] = set()
            for side, rule in ((self.old, old), (self.new, new)):
                if rule is not None:
                    analysis, data = side.engine.analysis, side.engine.sources.data
                    near |= {json.dumps(each): each for each in constants(analysis, data, rule)}
                    paths |= rule.reads
            draw = Draw(schema, sorted(paths), list(near.values()), Random(f"{self.seed} {event_type.name} {name}"))  # noqa: S311
            yield from self._draw(event_type, name, draw)

    def _draw(self, event_type: EventType, name: str, draw: Draw) -> Iterable[Case]:
        found: set[tuple[State, State]] = set()
        old, new = self._rules(name)
        differs_anyway = old is not None and new is not None and self._answer(old) != self._answer(new)
        for _ in range(self.tries):
            document = draw.one()
            self._tries += 1
            fires = self._fires(name, document)
            if any(fires):
                draw.keep(document)
            if fires in found or not (fires[0] != fires[1] or (differs_anyway and fires[0])):
                continue
            found.add(fires)
            witness = draw.shrunk(document, partial(self._fire_so, name, fires))
            yield self._case(event_type, (), ((name, *fires),), witness, exact=False)

    def _fire_so(self, name: str, fires: tuple[State, State], document: dict[str, Any]) -> bool:
        return self._fires(name, document) == fires

    def _fires(self, name: str, document: dict[str, Any]) -> tuple[State, State]:
        text = json.dumps(document)
        answers: list[State] = []
        for side, rule in zip((self.old, self.new), self._rules(name), strict=True):
            if rule is None:
                answers.append(False)
                continue
            package: Package = next(each for each in side.engine.packages if each.name == rule.package)
            (answer,) = side.engine.evaluate([package], text)
            if isinstance(answer, str) or (isinstance(answer, Partly) and rule.id in answer.errors):
                answers.append(None)
            else:
                fired = answer.fired if isinstance(answer, Partly) else answer
                answers.append(any(each.id == rule.id for each in fired))
        return answers[0], answers[1]

    def _notes(self) -> Iterable[Note]:
        if self.old.functions.masking() != self.new.functions.masking():
            yield Note(
                LOG_PACKAGE, "what decision logs mask or drop is said otherwise: this is shown, and not compared"
            )
        for name, former in sorted(self.renamed.items()):
            yield Note(name, f"was called {former}")
        old = {rule.id for rule in self.old.engine.rules} - set(self.renamed.values())
        new = {rule.id for rule in self.new.engine.rules} - self.renamed.keys()
        for name in sorted(old - new):
            yield Note(name, "is no longer there")
        for name in sorted(new - old):
            yield Note(name, "is new")
        for rule in self.new.engine.rules:
            before = self.old.rule(self.renamed.get(rule.id, rule.id))
            if before is None:
                continue
            if self._answer(before) != self._answer(rule):
                yield Note(rule.id, f"asks for {asked(rule.fired)}, and not {asked(before.fired)}, where it fires")
            for each in fields(Metadata):
                was, now = getattr(before.metadata, each.name), getattr(rule.metadata, each.name)
                if was != now:
                    yield Note(rule.id, f"METADATA {each.name}: {_quoted(was)} becomes {_quoted(now)}")


def _said(rule: Rule | None, state: State) -> str:
    if state is None:
        return "cannot be evaluated"
    return asked(rule.fired) if state and rule is not None else ""


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text if len(text) <= _LEAST_SHOWN else f"{text[:_LEAST_SHOWN]}...", ensure_ascii=False)
