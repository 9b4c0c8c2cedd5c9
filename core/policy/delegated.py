"""Decisions by an OPA server, with the embedded engine to stand in: both have the same bundle.

What the server answers is taken only where rules of the policy in force could have said it: by a package that was
asked, a rule of that package, and exactly the action, scope, error and time that this rule declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..decision import FiredRule
from ..errors import DecisionError
from ..opa.server import EngineName, OpaServer
from .engine import Answer, Engine, Package, fired_rules


@dataclass(frozen=True, slots=True)
class Answered:
    """What the packages say about one document, in the order in which they were asked."""

    answers: Sequence[Answer]
    engine: EngineName | str
    """Who said it."""


class Many(Protocol):
    """Decides about many documents at once."""

    @property
    def together(self) -> int:
        """How many it is worth to wait for."""

    def evaluate_many(self, asked: Sequence[tuple[tuple[Package, ...], str]]) -> list[Answered]:
        """For each the answers of these packages about this document (JSON). Never fails."""


class Delegated:
    """One policy in force, decided by a server; `Many`."""

    def __init__(self, server: OpaServer, embedded: Engine) -> None:
        """`embedded` decides whenever the server cannot."""
        self._server, self._embedded = server, embedded
        self._declared = {each.name: frozenset(rule.fired for rule in each.rules) for each in embedded.packages}

    @property
    def together(self) -> int:
        """See `Many`."""
        return self._server.together

    def evaluate_many(self, asked: Sequence[tuple[tuple[Package, ...], str]]) -> list[Answered]:
        """See `Many`."""
        found: list[Answered] = []
        for start in range(0, len(asked), self.together):
            some = asked[start : start + self.together]
            answers = self._by_server(some)
            if answers is None:
                found += [
                    Answered(self._embedded.evaluate(packages, document), "embedded") for packages, document in some
                ]
            else:
                found += [Answered(each, "opa") for each in answers]
        return found

    def _by_server(self, asked: Sequence[tuple[tuple[Package, ...], str]]) -> list[list[tuple[FiredRule, ...]]] | None:
        questions = [(tuple(each.name for each in packages), document) for packages, document in asked]
        answers = self._server.ask(questions, self._embedded.revision)
        if answers is None:
            return None
        try:
            return [
                [self._fired(package, text) for package, text in zip(packages, texts, strict=True)]
                for (packages, _), texts in zip(questions, answers, strict=True)
            ]
        except (DecisionError, ValueError) as error:
            self._server.distrust(len(asked), f"its answer cannot be: {str(error)[:200]}")
            return None

    def _fired(self, package: str, text: str) -> tuple[FiredRule, ...]:
        fired = fired_rules(text)
        for each in fired:
            if each not in self._declared[package]:
                raise DecisionError(f"no rule of {package} declares {each.id} with {each.action} and the rest of it")
        if len(set(fired)) != len(fired):
            raise DecisionError(f"a rule of {package} is in it twice")
        return fired
