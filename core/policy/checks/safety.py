"""Variables that never get a value: OPA's rule of safety, which the embedded engine applies to part of a policy only.

A query's statements may stand in any order. One can be evaluated when all of its variables have values, but for those
that it gives values itself: by `:=`, `=`, `some ... in`, as an index, or as a function's last argument. What is left
when no further statement can be evaluated is unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import PolicyError
from ..definition import Definition, Node, parameters
from .head import worked_out
from .scope import LexicalScope, declarations, pattern_variables
from .statements import Arity, Names, Parts, Statement, parts_of, results_of

_KEYWORDS = frozenset("as default else every if import in not null package some true false with".split())


@dataclass(slots=True)
class Safety:
    """Checks definitions. Raises `PolicyError` at the first unsafe variable."""

    arity: Arity
    ordered: dict[int, list[Node]] = field(default_factory=dict)
    """The statements of each query (by its identity) in an order in which they can be evaluated."""

    def definition(self, definition: Definition, scope: LexicalScope) -> None:
        """`scope`: that of its file."""
        arguments = frozenset(name for each in parameters(definition) for name, _ in pattern_variables(each))
        if taken := sorted(arguments & (_KEYWORDS | {"input", "data"})):
            raise PolicyError(f"{definition.place}:{definition.line}: an argument is named {taken[0]}; rename it")
        if definition.plain and definition.name == "contains":
            raise PolicyError(f"{definition.place}:{definition.line}: a rule is named `contains`, a keyword; rename it")
        scope = scope.within(arguments)
        tree = definition.tree
        if definition.is_default:
            for node in worked_out(tree["value"]):
                what = "without variables, references, calls and operators"
                raise PolicyError(f"{scope.place(node)}: a default value must be a constant, {what}")
            for closure in parts_of([tree["value"]], scope).closures:
                ((_, inner),) = closure.items()
                self._query(inner["query"], results_of(inner), frozenset(), scope)
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

    def _query(self, query: Node, results: list[Node], safe: Names, scope: LexicalScope) -> None:
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
        statements = [
            Statement.of(self.arity, each, scope) for each in query["stmts"] if "SomeVars" not in each["literal"]
        ]
        statements += [Statement(parts_of([each], scope), scope) for each in results]
        inner = {id(each): self._enclosed(each, scope) for each in statements}
        mentioned = {name for each in statements for name in (*each.parts.variables, *inner[id(each)])}
        if unused := sorted(named - mentioned):
            raise PolicyError(f"{scope.place(query)}: variable {unused[0]} is declared and not used; drop it")
        outer = safe | {name for each in statements for name in each.parts.variables}
        ordered = self.ordered[id(query)] = []
        waiting = statements
        while waiting:
            left = []
            for each in waiting:
                if each.needed <= safe | each.given(safe) and inner[id(each)] & outer <= safe:
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
            for closure in each.parts.closures:
                ((_, inner),) = closure.items()
                self._query(inner["query"], results_of(inner), safe, scope)

    def _used_first(self, statement: Node, scope: LexicalScope) -> Names:
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
        return frozenset(parts_of(uses, scope).variables)

    def _statements(self, query: Node, scope: LexicalScope) -> list[Statement]:
        """Those that are evaluated."""
        found = (each for each in query["stmts"] if "SomeVars" not in each["literal"])
        return [Statement.of(self.arity, each, scope) for each in found]

    def _unsafe(self, left: list[Statement], safe: Names, outer: Names, scope: LexicalScope) -> PolicyError:
        bound = {name for each in left for name in each.given(outer)}
        unbound = [
            (name in bound, each, name, node)
            for each in left
            for name, node in each.parts.variables.items()
            if name not in safe | each.given(safe)
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

    def _enclosed(self, statement: Statement, scope: LexicalScope) -> Names:
        """Variables that the statement's closures need from outside."""
        found = self._inner(statement.parts, scope)
        if statement.node is not None:  # what it declares, it does not use: theirs are variables of the same names
            found -= {name for name, _ in declarations({"stmts": [statement.node]}, scope)}
        if (every := statement.every) is not None:
            names = frozenset(scope.text(every[part]) for part in ("key", "value") if every.get(part))
            found |= self._free(every["query"], [], scope.within(names)) - names
        return found

    def _inner(self, parts: Parts, scope: LexicalScope) -> Names:
        """Variables in closures that are not their own."""
        found: set[str] = set()
        for closure in parts.closures:
            ((_, inner),) = closure.items()
            found |= self._free(inner["query"], results_of(inner), scope)
        return frozenset(found)

    def _free(self, query: Node, results: list[Node], scope: LexicalScope) -> Names:
        own = frozenset(name for name, _ in declarations(query, scope))
        scope = scope.within(own)
        found: set[str] = set()
        hidden: set[str] = set()
        before: set[str] = set()
        for each in query["stmts"]:
            if "SomeVars" not in each["literal"]:
                before |= self._used_first(each, scope) - hidden
            hidden |= {name for name, _ in declarations({"stmts": [each]}, scope)}
        statements = [
            Statement.of(self.arity, each, scope) for each in query["stmts"] if "SomeVars" not in each["literal"]
        ]
        for each in (*statements, *(Statement(parts_of([each], scope), scope) for each in results)):
            found |= {*each.parts.variables, *self._enclosed(each, scope)}
        return frozenset(found) - own | before


def _some(statement: Node, scope: LexicalScope) -> Iterator[str]:
    yield from (scope.text(each) for each in statement["literal"]["SomeVars"]["vars"])
