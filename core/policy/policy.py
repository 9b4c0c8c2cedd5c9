"""Decides: the packages that an event's kind concerns, the memo, the merge."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..decision import Action, Decision, FiredRule, merge
from ..events.wire import Json
from .delegated import Answered, Many
from .engine import Engine, Package, Partly, Path, Rule

ON_ERROR = "policy.on_error"
"""Id of the reaction that is added where a package cannot be evaluated."""
_ABSENT = object()
_UNDESCRIBED: Mapping[str, Json] = {"severity": "", "title": "", "technique": ""}


@dataclass(frozen=True, slots=True)
class _Plan:
    """How events of one kind are decided."""

    packages: tuple[Package, ...]
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """What the packages read of a document: the memo's key."""
    document: Callable[[tuple[Any, ...]], str]
    """The least input that holds these values, as JSON."""
    pure: bool


class Policy:
    """One policy in force. A reload makes a new one, so that nothing remembered outlives its rules."""

    def __init__(self, engine: Engine, *, on_error: Action, memo: int, many: Many | None = None) -> None:
        """`on_error` is added to the answers of a package that fails; `memo`: answers that are remembered.

        `many` decides instead of `engine`, which has the same policy, where several documents are better asked at once.
        """
        self._engine, self._on_error, self._limit, self._many = engine, on_error, memo, many
        self.together = many.together if many is not None else 1
        """Events that it is worth to decide at once."""
        self._memo: OrderedDict[tuple[str, tuple[Any, ...]], Decision] = OrderedDict()
        self._plans: dict[str, _Plan] = {}
        self.decided = 0
        self.remembered = 0
        """Decisions that came out of the memo."""
        self.errors: Counter[str] = Counter()
        """Failed evaluations by package."""
        self._described: dict[str, Mapping[str, Json]] = {
            ON_ERROR: {"severity": "high", "title": "Part of the policy could not be evaluated", "technique": ""}
        }
        for rule in self.rules:
            about = rule.metadata
            described = {"severity": about.severity, "title": about.title, "technique": about.technique}
            self._described.setdefault(rule.id, described)

    @property
    def revision(self) -> str:
        """Digest over everything that decides."""
        return self._engine.revision

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules in order of their ids."""
        return tuple(sorted((rule for each in self._engine.packages for rule in each.rules), key=lambda rule: rule.id))

    def decide(self, kind: str, document: Mapping[str, Json]) -> Decision:
        """The decision for one event; never raises for what a policy does."""
        return self.decide_many([(kind, document)])[0]

    def describe(self, rule: str) -> Mapping[str, Json]:
        """Severity, title and technique of a rule, empty where its METADATA do not say them."""
        return self._described.get(rule, _UNDESCRIBED)

    def decide_many(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Decision]:
        """The same for several, each of a kind and with a document, in their order."""
        self.decided += len(events)
        found: dict[int, Decision] = {}
        asked: dict[tuple[str, tuple[Any, ...]] | int, tuple[_Plan, str, list[int]]] = {}
        for number, (kind, document) in enumerate(events):
            plan = self._plans.get(kind) or self._planned(kind)
            values = plan.values(document)
            key = (kind, values)
            if plan.pure and (known := self._memo.get(key)) is not None:
                self.remembered += 1
                self._memo.move_to_end(key)
                found[number] = known
            elif plan.pure and key in asked:
                asked[key][2].append(number)
            else:
                asked[key if plan.pure else number] = plan, plan.document(values), [number]
        decisions = self._evaluate([each[:2] for each in asked.values()])
        for (question, (_, _, numbers)), decision in zip(asked.items(), decisions, strict=True):
            found |= dict.fromkeys(numbers, decision)
            self.remembered += len(numbers) - 1
            if isinstance(question, tuple) and not decision.error and self._limit:
                self._memo[question] = decision
                if len(self._memo) > self._limit:
                    self._memo.popitem(last=False)
        return [found[number] for number in range(len(events))]

    def _evaluate(self, asked: Sequence[tuple[_Plan, str]]) -> list[Decision]:
        """Decide about each plan's document."""
        if self._many is None:
            return [
                self._merged(plan, Answered(self._engine.evaluate(plan.packages, text) if plan.packages else (), ""))
                for plan, text in asked
            ]
        some = [(plan.packages, text) for plan, text in asked if plan.packages]
        answered = iter(self._many.evaluate_many(some) if some else ())
        return [self._merged(plan, next(answered) if plan.packages else Answered((), "")) for plan, _ in asked]

    def _merged(self, plan: _Plan, answered: Answered) -> Decision:
        fired: list[FiredRule] = []
        errors: list[str] = []
        for package, answer in zip(plan.packages, answered.answers, strict=True):
            if isinstance(answer, tuple):
                fired += answer
                continue
            self.errors[package.name] += 1
            errors.append(f"{package.name}: {answer.why}" if isinstance(answer, Partly) else answer)
            fired += [*(answer.fired if isinstance(answer, Partly) else ()), FiredRule(ON_ERROR, self._on_error)]
        merged = merge(fired, tier="user", revision=self.revision, error="; ".join(errors))
        return merged._replace(engine=answered.engine) if answered.engine else merged

    def _planned(self, kind: str) -> _Plan:
        packages = tuple(package for package in self._engine.packages if package.concerns(kind))
        paths = least({path for package in packages for path in package.reads(kind)})
        plan = _Plan(
            packages, _values_of(paths), lambda values: _document(paths, values), all(each.pure for each in packages)
        )
        self._plans[kind] = plan
        return plan


def least(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without those that another one contains."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=len):
        if not any(path[: len(other)] == other for other in kept):
            kept.append(path)
    return tuple(sorted(kept))


def _values_of(paths: tuple[Path, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    def value(document: Any, path: Path) -> Any:
        for name in path:
            if not isinstance(document, dict) or name not in document:
                return _ABSENT
            document = document[name]
        # A tree is compared as text: 1 and true are equal as keys, but a field always has one type.
        return _Tree(json.dumps(document)) if isinstance(document, dict | list) else document

    return lambda document: tuple(value(document, path) for path in paths)


@dataclass(frozen=True, slots=True)
class _Tree:
    text: str


def _document(paths: tuple[Path, ...], values: tuple[Any, ...]) -> str:
    """JSON with just these values at these paths."""
    if paths == ((),):
        tree = values[0]
        return tree.text if isinstance(tree, _Tree) else "{}"
    root: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        if value is _ABSENT:
            continue
        at = root
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = json.loads(value.text) if isinstance(value, _Tree) else value
    return json.dumps(root)
