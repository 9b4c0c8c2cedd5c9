"""Policies of few rules, and what differs between two of them."""

from typing import Any

from krie.decision import Action
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.cases import Difference
from krie.review.difference import Comparer
from krie.review.sides import sides

from .sample import DATA, KIND

HEAD = 'rules contains {{"id": "{}", "action": "{}"}} if {{\n\tinput.event.kind == "sample.seen"\n'


def engine(text: str, data: dict[str, Any] | None = None) -> EmbeddedEngine:
    sources = PolicySources(
        (PolicyFile("sample.rego", f"package krie.sample\n\n{text}\n"),), {**DATA, **(data or {})}, "r"
    )
    return EmbeddedEngine(sources)


def comparer(old: EmbeddedEngine, new: EmbeddedEngine, tries: int = 1000) -> Comparer:
    return Comparer(*sides(old, new, Action.LOG), [KIND], {}, tries)


def compared(old: str, new: str, **data: Any) -> Difference:
    return comparer(engine(old), engine(new, data)).compare()


def rule(body: str, name: str = "R", action: str = "override", head: str = "") -> str:
    lines = "".join(f"\t{line}\n" for line in body.split("\n"))
    return f"{head}{HEAD.format(name, action)}{lines}}}\n"


def rules(each: list[tuple[str, list[str]]]) -> str:
    return "\n".join(rule("\n".join(body), f"R{at}", action) for at, (action, body) in enumerate(each))
