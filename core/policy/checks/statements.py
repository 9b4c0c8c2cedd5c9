"""The statements of a query: which variables they need, and to which they give values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..definition import Node
from .scope import CLOSURES, LOCAL, LexicalScope, children, pattern_variables

Names = frozenset[str]
Arity = Callable[[LexicalScope, Node], int | None]
"""How many arguments a call's function takes; None where it is not known."""


@dataclass(slots=True)
class Parts:
    """What an expression is made of."""

    variables: dict[str, Node] = field(default_factory=dict)
    """Those outside of closures, each with its first place."""
    lookups: list[tuple[Names, Names]] = field(default_factory=list)
    """References: variables that it starts at, and those in its brackets, which it gives values to."""
    closures: list[Node] = field(default_factory=list)
    calls: list[Node] = field(default_factory=list)


def parts_of(nodes: list[Node], scope: LexicalScope) -> Parts:
    """All of these expressions' parts together."""
    parts = Parts()
    for each in nodes:
        _collect(each, scope, parts)
    return parts


def _collect(node: Node, scope: LexicalScope, parts: Parts) -> None:
    ((kind, inner),) = node.items()
    if kind == "Var":
        if scope.meaning(str(inner["value"])) == LOCAL:
            parts.variables.setdefault(_name(node), node)
    elif kind in ("RefDot", "RefBrack"):
        indices, base = [], node
        while "RefDot" in base or "RefBrack" in base:
            if "RefBrack" in base:
                indices.append(base["RefBrack"]["index"])
            base = next(iter(base.values()))["refr"]
        start, inside = parts_of([base], scope), parts_of(indices, scope)
        parts.lookups.append((frozenset(start.variables), frozenset(inside.variables)))
        for part in (start, inside):
            for name, where in part.variables.items():
                parts.variables.setdefault(name, where)
            parts.lookups += part.lookups
            parts.closures += part.closures
            parts.calls += part.calls
    elif kind == "Call":
        parts.calls.append(node)
        for each in inner["params"]:
            _collect(each, scope, parts)
    elif kind in CLOSURES:
        parts.closures.append(node)
    else:
        for each in children(kind, inner):
            _collect(each, scope, parts)


def results_of(closure: Node) -> list[Node]:
    """The expressions of a comprehension's answer."""
    return [closure[part] for part in ("term", "key", "value") if closure.get(part) is not None]


def _name(node: Node) -> str:
    """Each `_` is a variable of its own."""
    name = str(node["Var"]["value"])
    return name if name != "_" else f"_ {node['Var']['span']['start']}"


@dataclass(slots=True)
class Statement:
    """One statement of a query, or one expression that is its result."""

    parts: Parts
    scope: LexicalScope
    node: Node = None
    negated: bool = False
    sides: tuple[Node, Node] | None = None
    """Of `=` and `:=`."""
    patterns: tuple[Node, ...] = ()
    """Of `some ... in`."""
    out: Node = None
    """The last argument of a call that has one more than its function takes."""
    inputs: Names = frozenset()
    """Variables in its other arguments."""
    every: Node = None
    modified: Names = frozenset()
    """Variables in what `with` sets."""

    @property
    def needed(self) -> Names:
        """Its variables, outside of closures."""
        return frozenset(self.parts.variables)

    @classmethod
    def of(cls, arity: Arity, statement: Node, scope: LexicalScope) -> Statement:
        """Read a statement from the parser's node."""
        ((kind, node),) = statement["literal"].items()
        modifiers = [each["as"] for each in statement.get("with_mods") or ()]
        modified = frozenset(parts_of(modifiers, scope).variables)
        if kind == "SomeIn":
            patterns = tuple(node[part] for part in ("key", "value") if node.get(part) is not None)
            terms = parts_of([*patterns, node["collection"], *modifiers], scope)
            return cls(terms, scope, statement, patterns=patterns, modified=modified)
        if kind == "Every":
            return cls(parts_of([node["domain"], *modifiers], scope), scope, statement, every=node, modified=modified)
        expression = node["expr"]
        made = cls(parts_of([expression, *modifiers], scope), scope, statement, kind == "NotExpr", modified=modified)
        if kind == "Expr" and (assigned := expression.get("AssignExpr")) is not None:
            made.sides = assigned["lhs"], assigned["rhs"]
        elif kind == "Expr" and (call := expression.get("Call")) is not None:
            count = arity(scope, call)
            if count is not None and len(call["params"]) == count + 1:
                made.out = call["params"][-1]
                made.inputs = frozenset(parts_of(call["params"][:-1], scope).variables)
        return made

    def given(self, safe: Names) -> Names:
        """Variables that it gives values to when these have some."""
        if self.negated or not self.modified <= safe:
            return frozenset()
        found: set[str] = set()
        # What a reference starts at must have its value before: the statement cannot give it.
        before = {name for start, _ in self.parts.lookups for name in start} - safe
        if len(self.patterns) > 1:  # but the value's pattern may look into the key
            before -= set(_pattern(self.patterns[0]))
        size = -1
        while len(found) != size:
            size = len(found)
            for start, inside in self.parts.lookups:
                if start <= safe | found:
                    found |= inside
            if self.sides is not None:
                self._unify(*self.sides, safe, found)
            names = [each for each in (*self.patterns, self.out) if each is not None]
            bound = {name for each in names for name in _pattern(each)}
            inputs = (self.needed - bound) | self.inputs
            if (self.patterns or self.out is not None) and inputs <= safe | found:
                found |= bound
            found -= before
        return frozenset(found)

    def _unify(self, left: Node, right: Node, safe: Names, found: set[str]) -> None:
        for one, other in ((left, right), (right, left)):
            if parts_of([other], self.scope).variables.keys() <= safe | found:
                found |= {name for name in _pattern(one) if self.scope.meaning(name) == LOCAL}
        if "Array" in left and "Array" in right:
            for one, other in zip(left["Array"]["items"], right["Array"]["items"], strict=False):
                self._unify(one, other, safe, found)
        if "Object" in left and "Object" in right:
            fields: Mapping[str, Node] = {repr(_value(key)): value for _, key, value in right["Object"]["fields"]}
            for _, key, value in left["Object"]["fields"]:
                if (other := fields.get(repr(_value(key)))) is not None:
                    self._unify(value, other, safe, found)


def _pattern(node: Node) -> Iterator[str]:
    for _, each in pattern_variables(node):
        yield _name(each)


def _value(node: Node) -> object:
    ((kind, inner),) = node.items()
    return kind, inner.get("value") if isinstance(inner, dict) else inner
