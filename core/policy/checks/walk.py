"""One query, statement by statement, as OPA's type checker (`v1/ast/check.go`) goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...events.inline import NamePath
from ..definition import Node, reference
from .functions import ARITHMETIC, builtins
from .head import constant, steps_of
from .kinds import (
    ANY,
    BOOLEAN,
    NUMBER,
    TEXT,
    Array,
    Function,
    Kind,
    Object,
    Set,
    can_equal,
    either,
    keys,
    of_description,
    small,
    unknown,
    values,
    words,
)
from .references import Layers, References
from .rule_tree import Tree, find
from .scope import CLOSURES, children, declarations

_OPERATIONS = {"ArithExpr", "BinExpr"}


@dataclass(slots=True)
class Common(Layers):
    """What one policy's queries have in common."""

    ordered: Mapping[int, Sequence[Node]] = field(default_factory=dict)
    """The statements of each query (by its identity) in the order in which they can be evaluated."""
    dependents: Callable[[NamePath], Iterable[NamePath]] = lambda _: ()
    """Paths of the rules that a reference may mean, and of all that depend on them."""


@dataclass(slots=True)
class Walk(References):
    """Walks a query, learning what its variables are. Raises `PolicyError` for what OPA refuses."""

    world: Common = field(default_factory=Common)
    loose: bool = False
    """In the body of `every`, OPA looks at references and comprehensions only, and learns nothing of variables."""

    def query(self, query: Node, names: Iterable[str] = ()) -> Walk:
        """Walk a query within this one; the walk with what is known in it."""
        declared = frozenset(name for name, _ in declarations(query, self.scope)) | frozenset(names)
        known = {name: kind for name, kind in self.known.items() if name not in declared}
        walk = Walk(self.scope.within(declared), known, self.seen, self.world, self.loose)
        for statement in self.world.ordered[id(query)]:
            walk.statement(statement)
        return walk

    def statement(self, statement: Node) -> None:
        """Walk one statement."""
        layers = self.world.layers
        self.world.layers = [*layers, *self._replaced(statement.get("with_mods") or ())]
        ((kind, node),) = statement["literal"].items()
        for each in _inner_calls(node):
            self.visit(each)
        if kind == "SomeIn":
            self._some_in(node)
        elif kind == "Every":
            self.visit(node["domain"])
            names = [self.scope.text(node[part]) for part in ("key", "value") if node.get(part)]
            Walk(self.scope, dict(self.known), self.seen, self.world, loose=True).query(node["query"], names)
        elif (assigned := node["expr"].get("AssignExpr")) is not None:
            self._equal(assigned["lhs"], assigned["rhs"], "=" if assigned["op"] == "Eq" else ":=")
        elif (compared := node["expr"].get("BoolExpr")) is not None and compared["op"] == "Eq":
            self._equal(compared["lhs"], compared["rhs"], "==")
        else:
            self.visit(node["expr"])
        self.world.layers = layers

    def _some_in(self, node: Node) -> None:
        collection = node["collection"]
        self.visit(collection)
        root, path = self.from_root(collection)
        if node.get("key") is not None:
            self.visit(node["key"])
        index = node.get("key") or {"Var": {"value": "_"}}
        if root:
            element = self.document(root, [*path, index], collection)
        else:
            scalar = constant(collection) is not None
            element = self.follow(ANY if scalar else self.base(collection), [index], collection)
            element = None if scalar else element  # it has no elements, and OPA no type of them
        self.visit(node["value"])
        self._is(node["value"], element)

    def _equal(self, left: Node, right: Node, operator: str) -> None:
        self.visit(left)
        self.visit(right)
        if not self.loose and not self.same(left, right):
            one, other = self.kind(left), self.kind(right)
            alike = type(one) is type(other) and not isinstance(one, str)
            shown = " with ".join(words(each) for each in (one, other))
            if alike:
                shown = f"{words(one)} with another that cannot be the same"
            fix = "compare with a value of its own type"
            if {one, other} == {NUMBER, TEXT}:
                fix = "write both as numbers or both as text"
            self.refuse(left, f"compares {shown} by {operator}, which is never true", fix)

    def _is(self, left: Node, other: Kind | None) -> None:
        if self.loose:
            return
        if other is None and self.is_variable(left) and self.kind(left) is None:
            other = ANY
        own = self.kind(left)
        fits = can_equal(own, other) if not unknown(own) else self.learn(left, other)
        if not fits:
            what = f"{words(own)} can never be {words(other)}"
            self.refuse(left, f"{what}, which this wants of it", "compare with a value of its own type")

    def visit(self, node: Node) -> None:
        """Check a term and all in it."""
        ((name, inner),) = node.items()
        if id(node) in self.seen:
            return
        if name == "Var":
            if self.scope.meaning(str(inner["value"])):
                self._reference(node)
        elif name in ("RefDot", "RefBrack"):
            self._reference(node)
        elif name == "Call":
            self.seen[id(node)] = self._call(node, inner)
        elif name in CLOSURES:
            self.seen[id(node)] = self._closure(name, inner)
        else:
            for each in children(name, inner):
                self.visit(each)
            if name in _OPERATIONS:
                self.seen[id(node)] = self._operation(node, ARITHMETIC[inner["op"]], [inner["lhs"], inner["rhs"]])
            elif name == "BoolExpr":
                for side in (inner["lhs"], inner["rhs"]):
                    if not self.loose:
                        self.learn(side, ANY)
                self.seen[id(node)] = BOOLEAN if not self.loose else None
            elif name == "Membership":
                self.seen[id(node)] = self._membership(inner)

    def _reference(self, node: Node) -> None:
        base, steps = steps_of(node)
        for each in steps:
            if not self.is_variable(each):
                self.visit(each)
        if "Var" not in base:
            self.visit(base)
        root, path = self.from_root(node)
        kind = self.document(root, path, node) if root else self.follow(self.base(base), steps, node)
        self.seen[id(node)] = (kind if kind is not None else ANY) if not self.loose else None

    def _operation(self, node: Node, name: str, operands: Sequence[Node]) -> Kind | None:
        if self.loose:
            return None
        wanted = list(map(of_description, builtins()[name].arguments))
        self._arguments(node, f"an operand of {name}", operands, wanted)
        return of_description(builtins()[name].result)

    def _closure(self, name: str, inner: Node) -> Kind | None:
        loose = self.loose
        strict = Walk(self.scope, dict(self.known), self.seen, self.world).query(inner["query"])
        parts = [inner[part] for part in ("term", "key", "value") if inner.get(part) is not None]
        for each in parts:
            strict.visit(each)
        if loose:
            return None
        kinds = [strict.kind(each) or ANY for each in parts]
        if name == "ObjectCompr":
            return small(Object((), (kinds[0], kinds[1])))
        return small(Array((), kinds[0]) if name == "ArrayCompr" else Set(kinds[0]))

    def _membership(self, inner: Node) -> Kind | None:
        if self.loose:
            return None
        collection = self.kind(inner["collection"])
        found = values(collection)
        if found is not None:
            pairs: list[tuple[Node, Kind | None]] = [(inner["value"], found)]
            if inner.get("key") is not None:
                pairs.insert(0, (inner["key"], keys(collection)))
            for each, wanted in pairs:
                if wanted is None or unknown(wanted):
                    continue
                own = self.kind(each)
                if not (unknown(own) or can_equal(own, wanted)) or not self.learn(each, wanted):
                    what = f"looks for {words(own)} in {words(collection)}, where it never is"
                    self.refuse(each, what, "compare with values of its own type")
        for each in (inner["value"], inner["collection"], inner.get("key")):
            if each is not None:
                self.learn(each, ANY)
        return BOOLEAN

    def _call(self, node: Node, call: Node) -> Kind | None:
        found = reference(call["fcn"])
        if found is None or found[0] in self.scope.declared:
            return ANY
        path = (*(self.scope.meaning(found[0]) or (found[0],)), *found[1])
        name = ".".join(path)
        function = self.function(path)
        for each in call["params"]:
            self.visit(each)
        if self.loose:
            return None
        if function is None:
            return ANY
        wanted: list[Kind | None] = list(function.arguments)
        if len(call["params"]) > len(wanted):
            wanted.append(function.result)
        self._arguments(node, f"of {name}", call["params"], wanted)
        return function.result

    def function(self, path: NamePath) -> Function | None:
        """A function that is called; None where anything may be."""
        if path[0] == "data":
            kind = find(self.world.layers, [(TEXT, each) for each in path])
            return kind if isinstance(kind, Function) else None
        builtin = builtins().get(".".join(path))
        if builtin is None or builtin.variadic:
            return None
        return Function(tuple(map(of_description, builtin.arguments)), of_description(builtin.result))

    def _arguments(self, node: Node, whose: str, given: Sequence[Node], wanted: Sequence[Kind | None]) -> None:
        before = list(map(self.kind, given))
        for number, (each, own, kind) in enumerate(zip(given, before, wanted, strict=False), 1):
            if not (unknown(own) or can_equal(own, kind)) or not self.learn(each, kind):
                what = whose if whose.startswith("an ") else f"argument {number} {whose}"
                shown = words(self.kind(each))
                if words(kind) == shown:
                    shown = "another"
                self.refuse(node, f"{what} is {shown}", f"it must be {words(kind)}")

    def _replaced(self, modifiers: Sequence[Node]) -> list[Tree]:
        """Layers over the rules for one statement."""
        layers = []
        own = Tree()
        for each in modifiers:
            target = self.scope.full(each["refr"])
            function = None
            if target is None and (named := reference(each["refr"])) is not None:
                function = self.function((named[0], *named[1]))
            elif target is not None and target[0][0] == "data":
                function = self.function(target[0])
            other = self._function_named(each["as"])
            if other is not None and (function is not None or (target is not None and target[0][0] == "data")):
                if function is not None and not can_equal(function, other):
                    self.refuse(each["as"], "the two functions take unlike arguments", "replace one by its like")
                replaced = None
            else:
                self.visit(each["as"])
                replaced = self.kind(each["as"])
            if target is None:
                continue
            path, whole = target
            if relaxed := [found for found in self.world.dependents(path) if not (function and found == path)]:
                layer = Tree()
                for found in relaxed:
                    layer.put([(TEXT, name) for name in found], ANY)
                layers.append(layer)
            if function is None:
                here = find(self.world.layers, [(TEXT, name) for name in path])
                kind = either(here, replaced) if whole and here is not None and replaced is not None else ANY
                own.put([(TEXT, name) for name in path], kind or ANY)
        return [*layers, own] if own.children else layers

    def _function_named(self, node: Node) -> Function | None:
        """A function that is named, not called."""
        if (found := reference(node)) is None or not found[2] or found[0] in self.scope.declared:
            return None
        path = (*(self.scope.meaning(found[0]) or (found[0],)), *found[1])
        if path[0] == "input":
            return None
        return self.function(path)


def _inner_calls(node: Node) -> Iterator[Node]:
    """Calls and operations within a statement's expression, which OPA works out before anything else in it."""
    todo = [(node.get(part), False) for part in ("expr", "collection") if node.get(part) is not None]
    while todo:
        each, within = todo.pop(0)
        ((name, inner),) = each.items()
        if within and (name == "Call" or name in _OPERATIONS):
            yield each
        elif name in ("RefDot", "RefBrack"):
            base, steps = steps_of(each)
            todo += [(part, True) for part in (base, *steps) if "Var" not in part]
        elif name not in CLOSURES and name != "Call":
            todo += [(part, within or name != "AssignExpr") for part in children(name, inner)]
