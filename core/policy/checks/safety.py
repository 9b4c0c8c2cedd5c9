"""Variables that never get a value: OPA's rule of safety, which the embedded engine applies to part of a policy only.

A query's statements may stand in any order. One can be evaluated when all of its variables have values, but for those
that it gives values itself: by `:=`, `=`, `some ... in`, as an index, or as a function's last argument. What is left
when no further statement can be evaluated is unsafe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import PolicyError
from ..definition import Definition, Node, parameters
from .scope import CLOSURES, LOCAL, Scope, children, declarations, pattern_variables

Names = frozenset[str]
_KEYWORDS = frozenset("as default else every if import in not null package some true false with".split())
Arity = Callable[[Scope, Node], int | None]
"""How many arguments a call's function takes; None where it is not known."""


@dataclass(slots=True)
class _Terms:
    """What an expression is made of."""

    variables: dict[str, Node] = field(default_factory=dict)
    """Those outside of closures, each with its first place."""
    lookups: list[tuple[Names, Names]] = field(default_factory=list)
    """References: variables that it starts at, and those in its brackets, which it gives values to."""
    closures: list[Node] = field(default_factory=list)
    calls: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Safety:
    """Checks definitions. Raises `PolicyError` at the first unsafe variable."""

    arity: Arity
    ordered: dict[int, list[Node]] = field(default_factory=dict)
    """The statements of each query (by its identity) in an order in which they can be evaluated."""

    def definition(self, definition: Definition, scope: Scope) -> None:
        """`scope`: that of its file."""
        arguments = frozenset(name for each in parameters(definition) for name, _ in pattern_variables(each))
        if taken := sorted(arguments & (_KEYWORDS | {"input", "data"})):
            raise PolicyError(f"{definition.place}:{definition.line}: an argument is named {taken[0]}; rename it")
        if definition.plain and definition.name == "contains":
            raise PolicyError(f"{definition.place}:{definition.line}: a rule is named `contains`, a keyword; rename it")
        scope = scope.within(arguments)
        tree = definition.tree
        if definition.is_default:
            terms = self._terms([tree["value"]], scope)
            for node in terms.variables.values():
                raise PolicyError(f"{scope.place(node)}: a default value must be a constant, without variables")
            return
        shape = next(iter(tree["head"].values()))
        values = [shape["assign"]["value"]] if shape.get("assign") else []
        values += [shape["key"]] if shape.get("key") else []
        reference = shape["refr"]
        while "RefBrack" in reference or "RefDot" in reference:
            if "RefBrack" in reference:
                values.append(reference["RefBrack"]["index"])
            reference = next(iter(reference.values()))["refr"]
        bodies = tree["bodies"] or [{"query": {"stmts": []}, "is_else": False}]
        for body in bodies:
            for name, node in declarations(body["query"], scope):
                if name in arguments - {"_"}:
                    raise PolicyError(f"{scope.place(node)}: {name} is an argument already; rename one")
            own = [body["assign"]["value"]] if body.get("assign") else [] if body["is_else"] else values
            self._query(body["query"], own, arguments, scope)

    def _query(self, query: Node, results: list[Node], safe: Names, scope: Scope) -> None:
        """`results`: expressions that are evaluated when all statements are; `safe`: variables with values."""
        declared: set[str] = set()
        named = {
            name
            for statement in query["stmts"]
            if "SomeVars" in statement["literal"]
            for name in _some(statement, scope)
        }
        used: set[str] = set()
        for statement in query["stmts"]:
            own = list(declarations({"stmts": [statement]}, scope))
            if "SomeVars" not in statement["literal"]:
                used |= self._used_first(statement, scope) - declared
            for name, node in own:
                if name in used and name not in declared:
                    raise PolicyError(f"{scope.place(node)}: variable {name} is used before it is declared; rename one")
            for number, (name, node) in enumerate(own):
                # The patterns of one `some ... in` may name a variable twice: both must be equal.
                again = name in {other for other, _ in own[:number]} - {"_"} and "SomeIn" not in statement["literal"]
                if name in declared or again:
                    raise PolicyError(f"{scope.place(node)}: variable {name} is declared already; rename one")
            declared |= {name for name, _ in own} - {"_"}
        scope = scope.within(frozenset(declared))
        safe -= declared
        statements = [_Statement.of(self, each, scope) for each in query["stmts"] if "SomeVars" not in each["literal"]]
        statements += [_Statement(self._terms([each], scope), scope) for each in results]
        inner = {id(each): self._enclosed(each, scope) for each in statements}
        mentioned = {name for each in statements for name in (*each.terms.variables, *inner[id(each)])}
        if unused := sorted(named - mentioned):
            raise PolicyError(f"{scope.place(query)}: variable {unused[0]} is declared and not used; drop it")
        outer = safe | {name for each in statements for name in each.terms.variables}
        ordered = self.ordered[id(query)] = []
        waiting = statements
        while waiting:
            left = []
            for each in waiting:
                if each.needed <= safe | each.given(safe, self) and inner[id(each)] & outer <= safe:
                    safe |= each.needed
                    ordered += [each.node] if each.node is not None else []
                else:
                    left.append(each)
            if len(left) == len(waiting):
                raise self._unsafe(left, safe, outer, scope)
            waiting = left
        for each in statements:
            if each.every is not None:
                parts = [scope.text(each.every[part]) for part in ("key", "value") if each.every.get(part)]
                names = frozenset(parts)
                if len(parts) == 2 and parts[0] == parts[1] != "_":
                    place = scope.place(each.node)
                    raise PolicyError(f"{place}: variable {parts[0]} is declared already; rename one")
                if unread := sorted(names - {"_"} - self._free(each.every["query"], [], scope.within(names))):
                    place = scope.place(each.node)
                    raise PolicyError(f"{place}: variable {unread[0]} of `every` is not used; write _ for it")
                self._query(each.every["query"], [], safe | names, scope.within(names))
            for closure in each.terms.closures:
                ((_, inner),) = closure.items()
                self._query(inner["query"], _results(inner), safe, scope)

    def _used_first(self, statement: Node, scope: Scope) -> Names:
        """Variables that a statement uses before it declares some, outside of closures."""
        ((kind, node),) = statement["literal"].items()
        uses = [each["as"] for each in statement.get("with_mods") or ()]
        if kind == "SomeIn":
            uses.append(node["collection"])
        elif kind == "Every":
            uses.append(node["domain"])
        elif (assigned := node["expr"].get("AssignExpr")) is not None and assigned["op"] == "ColEq":
            uses.append(assigned["rhs"])
        else:
            uses.append(node["expr"])
        return frozenset(self._terms(uses, scope).variables)

    def _unsafe(self, left: list[_Statement], safe: Names, outer: Names, scope: Scope) -> PolicyError:
        bound = {name for each in left for name in each.given(outer, self)}
        unbound = [
            (name in bound, each, name, node)
            for each in left
            for name, node in each.terms.variables.items()
            if name not in safe | each.given(safe, self)
        ]
        for _, each, name, node in sorted(unbound, key=lambda found: found[0]):
            shown = "_" if name.startswith("_ ") else name
            return PolicyError(
                f"{each.scope.place(node)}: variable {shown} is unsafe: nothing gives it a value; define or import it"
            )
        at, name = next(
            (each.node, name) for each in left for name in sorted((self._enclosed(each, scope) & outer) - safe)
        )
        return PolicyError(f"{scope.place(at)}: variable {name} is unsafe: nothing gives it a value")

    def _enclosed(self, statement: _Statement, scope: Scope) -> Names:
        """Variables that the statement's closures need from outside."""
        found = self._inner(statement.terms, scope)
        if statement.node is not None:  # what it declares, it does not use: theirs are variables of the same names
            found -= {name for name, _ in declarations({"stmts": [statement.node]}, scope)}
        if (every := statement.every) is not None:
            names = frozenset(scope.text(every[part]) for part in ("key", "value") if every.get(part))
            found |= self._free(every["query"], [], scope.within(names)) - names
        return found

    def _inner(self, terms: _Terms, scope: Scope) -> Names:
        """Variables in closures that are not their own."""
        found: set[str] = set()
        for closure in terms.closures:
            ((_, inner),) = closure.items()
            found |= self._free(inner["query"], _results(inner), scope)
        return frozenset(found)

    def _free(self, query: Node, results: list[Node], scope: Scope) -> Names:
        own = frozenset(name for name, _ in declarations(query, scope))
        scope = scope.within(own)
        found: set[str] = set()
        hidden: set[str] = set()
        before: set[str] = set()
        for each in query["stmts"]:
            if "SomeVars" not in each["literal"]:
                before |= self._used_first(each, scope) - hidden
            hidden |= {name for name, _ in declarations({"stmts": [each]}, scope)}
        statements = [_Statement.of(self, each, scope) for each in query["stmts"] if "SomeVars" not in each["literal"]]
        for each in (*statements, *(_Statement(self._terms([each], scope), scope) for each in results)):
            found |= {*each.terms.variables, *self._enclosed(each, scope)}
        return frozenset(found) - own | before

    def _terms(self, nodes: list[Node], scope: Scope) -> _Terms:
        terms = _Terms()
        for each in nodes:
            self._collect(each, scope, terms)
        return terms

    def _collect(self, node: Node, scope: Scope, terms: _Terms) -> None:
        ((kind, inner),) = node.items()
        if kind == "Var":
            if scope.meaning(str(inner["value"])) == LOCAL:
                terms.variables.setdefault(_name(node), node)
        elif kind in ("RefDot", "RefBrack"):
            indices, base = [], node
            while "RefDot" in base or "RefBrack" in base:
                if "RefBrack" in base:
                    indices.append(base["RefBrack"]["index"])
                base = next(iter(base.values()))["refr"]
            start, inside = self._terms([base], scope), self._terms(indices, scope)
            terms.lookups.append((frozenset(start.variables), frozenset(inside.variables)))
            for part in (start, inside):
                for name, where in part.variables.items():
                    terms.variables.setdefault(name, where)
                terms.lookups += part.lookups
                terms.closures += part.closures
                terms.calls += part.calls
        elif kind == "Call":
            terms.calls.append(node)
            for each in inner["params"]:
                self._collect(each, scope, terms)
        elif kind in CLOSURES:
            terms.closures.append(node)
        else:
            for each in children(kind, inner):
                self._collect(each, scope, terms)


def _some(statement: Node, scope: Scope) -> Iterator[str]:
    yield from (scope.text(each) for each in statement["literal"]["SomeVars"]["vars"])


def _results(closure: Node) -> list[Node]:
    return [closure[part] for part in ("term", "key", "value") if closure.get(part) is not None]


def _name(node: Node) -> str:
    """Each `_` is a variable of its own."""
    name = str(node["Var"]["value"])
    return name if name != "_" else f"_ {node['Var']['span']['start']}"


@dataclass(slots=True)
class _Statement:
    """One statement of a query, or one expression that is its result."""

    terms: _Terms
    scope: Scope
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
        return frozenset(self.terms.variables)

    @classmethod
    def of(cls, safety: Safety, statement: Node, scope: Scope) -> _Statement:
        """Read a statement."""
        ((kind, node),) = statement["literal"].items()
        collect = safety._terms  # noqa: SLF001 - both are one
        modifiers = [each["as"] for each in statement.get("with_mods") or ()]
        modified = frozenset(collect(modifiers, scope).variables)
        if kind == "SomeIn":
            patterns = tuple(node[part] for part in ("key", "value") if node.get(part) is not None)
            terms = collect([*patterns, node["collection"], *modifiers], scope)
            return cls(terms, scope, statement, patterns=patterns, modified=modified)
        if kind == "Every":
            return cls(collect([node["domain"], *modifiers], scope), scope, statement, every=node, modified=modified)
        expression = node["expr"]
        made = cls(collect([expression, *modifiers], scope), scope, statement, kind == "NotExpr", modified=modified)
        if kind == "Expr" and (assigned := expression.get("AssignExpr")) is not None:
            made.sides = assigned["lhs"], assigned["rhs"]
        elif kind == "Expr" and (call := expression.get("Call")) is not None:
            arity = safety.arity(scope, call)
            if arity is not None and len(call["params"]) == arity + 1:
                made.out = call["params"][-1]
                made.inputs = frozenset(collect(call["params"][:-1], scope).variables)
        return made

    def given(self, safe: Names, safety: Safety) -> Names:
        """Variables that it gives values to when these have some."""
        if self.negated or not self.modified <= safe:
            return frozenset()
        found: set[str] = set()
        # What a reference starts at must have its value before: the statement cannot give it.
        before = {name for start, _ in self.terms.lookups for name in start} - safe
        if len(self.patterns) > 1:  # but the value's pattern may look into the key
            before -= set(_pattern(self.patterns[0]))
        size = -1
        while len(found) != size:
            size = len(found)
            for start, inside in self.terms.lookups:
                if start <= safe | found:
                    found |= inside
            if self.sides is not None:
                self._unify(*self.sides, safe, found, safety)
            names = [each for each in (*self.patterns, self.out) if each is not None]
            bound = {name for each in names for name in _pattern(each)}
            inputs = (self.needed - bound) | self.inputs
            if (self.patterns or self.out is not None) and inputs <= safe | found:
                found |= bound
            found -= before
        return frozenset(found)

    def _unify(self, left: Node, right: Node, safe: Names, found: set[str], safety: Safety) -> None:
        for one, other in ((left, right), (right, left)):
            if safety._terms([other], self.scope).variables.keys() <= safe | found:  # noqa: SLF001
                found |= {name for name in _pattern(one) if self.scope.meaning(name) == LOCAL}
        if "Array" in left and "Array" in right:
            for one, other in zip(left["Array"]["items"], right["Array"]["items"], strict=False):
                self._unify(one, other, safe, found, safety)
        if "Object" in left and "Object" in right:
            fields: Mapping[str, Node] = {repr(_value(key)): value for _, key, value in right["Object"]["fields"]}
            for _, key, value in left["Object"]["fields"]:
                if (other := fields.get(repr(_value(key)))) is not None:
                    self._unify(value, other, safe, found, safety)


def _pattern(node: Node) -> Iterator[str]:
    for _, each in pattern_variables(node):
        yield _name(each)


def _value(node: Node) -> object:
    ((kind, inner),) = node.items()
    return kind, inner.get("value") if isinstance(inner, dict) else inner
