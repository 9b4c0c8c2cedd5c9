"""Types of all rules, as OPA's type checker infers them, and what it refuses for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..definition import Definition, Node, parameters
from .head import Head
from .kinds import BOOLEAN, Function, Kind, Object, Set, filled, small
from .rule_tree import Tree
from .scope import LexicalScope, pattern_variables
from .walk import Common, Walk


@dataclass(slots=True)
class Typing:
    """All rules of a policy. Raises `PolicyError` at the first thing that is wrong."""

    world: Common
    rules: Tree = field(default_factory=Tree)

    def definition(self, definition: Definition, scope: LexicalScope) -> None:
        """Walk one definition; those that it mentions come before. `scope`: that of its file."""
        self.world.layers = [self.rules]
        patterns = parameters(definition)
        scope = scope.within(frozenset(name for each in patterns for name, _ in pattern_variables(each)))
        head = Head.of(definition, scope.module.package)
        for body in head.bodies:
            walk = Walk(scope, {}, world=self.world)
            if body.query is not None:
                walk = walk.query(body.query)
            for each in (*patterns, *head.dynamic, *body.results):
                walk.visit(each)
            kind = self._kind(head, body.results, walk, patterns)
            if kind is not None:
                self.rules.add(head.ground, small(kind))

    def _kind(self, head: Head, results: Sequence[Node], walk: Walk, patterns: Sequence[Node]) -> Kind | None:
        value = walk.kind(results[0]) if results else BOOLEAN
        if head.is_function:
            return Function(tuple(filled(walk.kind(each)) for each in patterns), filled(value))
        kind: Kind | None = Set(value) if head.is_set else value
        for step in reversed(head.dynamic):
            key = walk.kind(step)
            if kind is None or key is None:
                return None
            kind = Object((), (key, kind))
        return kind
