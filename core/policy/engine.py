"""What a policy engine is: the embedded one today, others behind the same protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..decision import Action, FiredRule, Scope
from ..errors import DecisionError
from .metadata import Metadata

Path = tuple[str, ...]
"""A reference below `input`, such as ("event", "name")."""
SEVERE = frozenset({"high", "critical"})
"""Severities of rules whose events are kept longer, and for whose records there is room in the ring."""
_EPERM = 1
_PROCESS_TTL_S = 600
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as far as reading its source tells."""

    id: str
    package: str
    place: str
    """FILE:LINE"""
    metadata: Metadata
    fired: FiredRule
    """What it answers when it fires."""
    kinds: frozenset[str]
    """Kinds that it names; empty: it looks at every kind."""
    reads: frozenset[Path]
    """Paths below `input` that it reads, through the functions that it calls too."""

    @property
    def action(self) -> str:
        """Its action by name."""
        return str(self.fired.action)

    def concerns(self, kind: str) -> bool:
        """Whether it looks at events of this kind."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class Package:
    """One package with a set `rules`."""

    name: str
    """Such as `data.krie.runtime_integrity`."""
    rules: tuple[Rule, ...]
    pure: bool
    """Its answer depends on nothing but input and data, so that it may be remembered."""

    def concerns(self, kind: str) -> bool:
        """Whether any rule looks at events of this kind."""
        return any(rule.concerns(kind) for rule in self.rules)

    def reads(self, kind: str) -> frozenset[Path]:
        """Paths that matter for events of this kind; rules that demand another kind cannot fire without theirs."""
        concerned = [rule for rule in self.rules if rule.concerns(kind)]
        return frozenset(path for rule in concerned for path in rule.reads)


@dataclass(frozen=True, slots=True)
class Partly:
    """What a package says of which some rules could not be evaluated."""

    fired: list[FiredRule] = field(default_factory=list)
    """Of the others."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why not, by rule."""

    @property
    def answer(self) -> Answer:
        """The same, or just what fired where nothing failed."""
        return self if self.errors else tuple(self.fired)

    @property
    def why(self) -> str:
        """All of it in one line, as far as anybody would read it."""
        told = [f"rule {rule}: {why}" for rule, why in list(self.errors.items())[:_TOLD]]
        more = list(self.errors)[_TOLD:]
        return "; ".join([*told, *([f"and so rules {', '.join(more)}"] if more else [])])


Answer = tuple[FiredRule, ...] | Partly | str
"""The rules of one package that fired; those of some of its rules; or why nothing can be said of it."""


class Engine(Protocol):
    """Evaluates packages one by one, so that what is wrong with one costs only its own rules."""

    @property
    def packages(self) -> Sequence[Package]:
        """All packages with rules."""

    @property
    def revision(self) -> str:
        """Digest over everything that decides."""

    def evaluate(self, packages: Sequence[Package], document: str) -> list[Answer]:
        """For each package its answer for the input document (JSON)."""


class _Answer(BaseModel):
    """An element of the set `rules`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1, max_length=64)
    action: Literal["allow", "log", "override", "kill"]
    scope: Literal["event", "process", "host"] = "event"
    errno: int = Field(_EPERM, ge=1, le=4095)
    ttl_s: int = Field(0, ge=0, le=86400)


@lru_cache(maxsize=1024)
def fired_rules(answer: str) -> tuple[FiredRule, ...]:
    """The rules in an engine's answer, a JSON list of objects. Raises `DecisionError` for anything else."""
    try:
        content = json.loads(answer)
        if not isinstance(content, list):
            raise DecisionError(f"`rules` must be a set of objects, not {answer[:80]}")
        return tuple(fired_rule(each) for each in content)
    except (ValueError, RecursionError) as error:  # too many digits, too deep: also where a message shows them
        raise DecisionError(f"`rules` cannot be read: {' '.join(str(error).split())[:80]}") from error


def fired_rule(content: object) -> FiredRule:
    """One object of the set `rules`. Raises `DecisionError`."""
    try:
        answer = _Answer.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DecisionError(f"a rule's {where or 'answer'} is wrong: {first['msg']}, not {first['input']!r}") from error
    action, scope = Action[answer.action.upper()], Scope[answer.scope.upper()]
    ttl_s = answer.ttl_s if scope is not Scope.EVENT else 0
    if scope is Scope.HOST and not ttl_s:
        raise DecisionError(f"rule {answer.id} has scope `host` and must say for how long: ttl_s")
    if scope is Scope.PROCESS and not ttl_s:
        ttl_s = _PROCESS_TTL_S
    return FiredRule(answer.id, action, scope, answer.errno if action is Action.OVERRIDE else 0, ttl_s)
