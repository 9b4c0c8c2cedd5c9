"""Decides: the packages that an event's kind concerns, the memo, the merge."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..decision import Action, Decision, FiredRule, merge
from ..wire import Json
from .engine import Engine, Package, Path, Rule

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

    def __init__(self, engine: Engine, *, on_error: Action, memo: int) -> None:
        """`on_error` is added to the answers of a package that fails; `memo`: answers that are remembered."""
        self._engine, self._on_error, self._limit = engine, on_error, memo
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
        self.decided += 1
        plan = self._plans.get(kind) or self._planned(kind)
        values = plan.values(document)
        key = (kind, values)
        if plan.pure and (known := self._memo.get(key)) is not None:
            self.remembered += 1
            self._memo.move_to_end(key)
            return known
        decision = self._evaluate(plan, plan.document(values))
        if plan.pure and not decision.error and self._limit:
            self._memo[key] = decision
            if len(self._memo) > self._limit:
                self._memo.popitem(last=False)
        return decision

    def describe(self, rule: str) -> Mapping[str, Json]:
        """Severity, title and technique of a rule, empty where its METADATA do not say them."""
        return self._described.get(rule, _UNDESCRIBED)

    def _evaluate(self, plan: _Plan, document: str) -> Decision:
        fired: list[FiredRule] = []
        errors: list[str] = []
        answers = self._engine.evaluate(plan.packages, document) if plan.packages else []
        for package, answer in zip(plan.packages, answers, strict=True):
            if isinstance(answer, str):
                self.errors[package.name] += 1
                errors.append(answer)
                fired.append(FiredRule(ON_ERROR, self._on_error))
            else:
                fired += answer
        return merge(fired, tier="user", revision=self.revision, error="; ".join(errors))

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
