"""Expressions that OPA and the embedded engine answer otherwise where part of them is undefined.

OPA works out the parts of an expression before it: where one is undefined, `not f(part)` is, too. The embedded engine
(regorus 0.13) takes `not` to hold then. And `part in collection` as a value is false there, and undefined in OPA.
What a negated or compared reference itself is does not matter: `not part`, `not f(1)`, `not part == 1` hold in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...events.inline import NamePath
from ..definition import Definition, Node, parameters, reference
from .functions import builtins
from .scope import CLOSURES, LOCAL, LexicalScope, children
from .types import Type

Found = tuple[str, Definition, LexicalScope]
_DEPTH = 12
FIX = "say what is negated or compared in a rule of its own, and use that"


@dataclass(frozen=True, slots=True)
class Undefined:
    """Looks for parts that may be undefined, as far as types and the rules' text tell."""

    definitions: Mapping[NamePath, list[Found]]
    input: Type
    always: frozenset[str]
    """Fields that events of all kinds have which are looked at."""
    data: Type
    replaced: frozenset[str] = frozenset()
    """`input` and `data` where `with` replaces parts of them."""
    known: Mapping[str, Type] = field(default_factory=dict)
    depth: int = 0

    def under_not(self, expression: Node, scope: LexicalScope) -> Node | None:
        """The first part because of which engines differ about `not expression`."""
        ((kind, inner),) = expression.items()
        equal = (kind == "BoolExpr" and inner["op"] == "Eq") or (kind == "AssignExpr" and inner["op"] == "Eq")
        for each in (inner["lhs"], inner["rhs"]) if equal else (expression,):
            parts: Iterable[Node] = [each]
            if "Var" in each or "RefDot" in each or "RefBrack" in each:
                parts = _indices(each)
            elif each is expression and kind == "Call":  # the function itself may have no answer, in both
                parts = inner["params"]
            if (found := next(filter(None, (self.part(part, scope) for part in parts)), None)) is not None:
                return found
        return None

    def as_values(self, node: Node, scope: LexicalScope, *, is_value: bool) -> Node | None:
        """The first such part of a `part in collection` that is used as a value. `is_value`: the whole of it is."""
        ((kind, inner),) = node.items()
        if kind in CLOSURES:  # their queries are looked at by themselves
            return None
        if kind == "Membership" and is_value and (found := self.part(node, scope)) is not None:
            return found
        below = _indices(node) if kind in ("RefDot", "RefBrack") else _parts(kind, inner)
        return next(filter(None, (self.as_values(each, scope, is_value=True) for each in below)), None)

    def part(self, node: Node, scope: LexicalScope) -> Node | None:
        """The first part of an expression that may be undefined."""
        ((kind, inner),) = node.items()
        if kind in ("Var", "RefDot", "RefBrack"):
            return None if self._is_there(node, scope) else node
        if kind in CLOSURES:
            return None
        found = next(filter(None, (self.part(each, scope) for each in _parts(kind, inner))), None)
        return node if found is None and kind == "Call" and not self._answers(inner, scope) else found

    def _answers(self, call: Node, scope: LexicalScope) -> bool:
        """Whether a function answers for all arguments; what a built-in one does not take is an error in both."""
        named = reference(call["fcn"])
        if named is None:
            return False
        path = (*(scope.meaning(named[0]) or (named[0],)), *named[1])
        found = self.definitions.get(path)
        if found is None:
            return ".".join(path) in builtins()
        return any(
            each.is_default or (not each.tree["bodies"] and all("Var" in one for one in parameters(each)))
            for _, each, _ in found
        )

    def _is_there(self, node: Node, scope: LexicalScope) -> bool:
        base, steps = _steps(node)
        if "Var" not in base:
            return False
        start = scope.meaning(str(base["Var"]["value"]))
        path: list[str] = list(start[1:])
        while steps and "String" in steps[0]:
            path.append(str(steps.pop(0)["String"]["value"]))
        if start == LOCAL:
            known = self.known.get(str(base["Var"]["value"]))
            return not steps and (not path or (known is not None and _has(known, path)))
        if steps or start[0] in self.replaced:
            return False
        if start[0] == "input":
            event = path[:1] == ["event"]
            return _has(self.input, path) and not (event and len(path) > 1 and path[1] not in self.always | {"kind"})
        if path[:1] == ["krie"]:
            return self._rule_is_there(("data", *path))
        return _has(self.data, path)

    def _rule_is_there(self, path: NamePath) -> bool:
        """Whether a rule has a value for all inputs."""
        found = self.definitions.get(path, [])
        if self.depth > _DEPTH:
            return False
        deeper = Undefined(self.definitions, self.input, self.always, self.data, self.replaced, depth=self.depth + 1)
        for _, each, scope in found:
            head = each.tree.get("head") or {}
            if each.is_default or "Set" in head or not each.plain:
                return True
            if "Compr" in head and not each.tree["bodies"]:
                assigned = head["Compr"].get("assign")
                return assigned is None or deeper.part(assigned["value"], scope) is None
        return False


def _steps(node: Node) -> tuple[Node, list[Node]]:
    steps: list[Node] = []
    while "RefDot" in node or "RefBrack" in node:
        ((kind, inner),) = node.items()
        steps.insert(0, inner["index"] if kind == "RefBrack" else {"String": {"value": inner["field"][1]}})
        node = inner["refr"]
    return node, steps


def _indices(node: Node) -> Iterator[Node]:
    """What stands in a reference's brackets, and before it where that is not a name."""
    base, steps = _steps(node)
    yield from ([] if "Var" in base else [base])
    yield from (each for each in steps if "String" not in each)


def _parts(kind: str, inner: Node) -> list[Node]:
    return list(inner["params"]) if kind == "Call" else children(kind, inner)


def _has(value: Type, path: list[str]) -> bool:
    for name in path:
        if value.members is None or name not in value.members:
            return False
        value = value.members[name]
    return True
