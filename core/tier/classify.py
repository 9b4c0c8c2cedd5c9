"""Which rules can be decided in the kernel, told from the policy's syntax tree.

The theorem: if every way from a field to the result goes through atoms `field OP constant`, and the result does not
carry the field, then inputs for which all atoms have the same answers give the same result. Fields with few values may
be used in any way, since all their values can be tried. Whatever is above the atoms (`not`, `else`, `default`, helper
rules, functions, comprehensions and `every` over data) needs no understanding: the real engine runs it.

So a rule is walked with four kinds of values: constants, fields, and what was derived from them; anything else, and
anything unknown, makes it a rule of user space. It may err only to that side.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..events.inline import InlineField, NamePath
from ..events.wire import Json
from ..policy.analysis import Analysis
from ..policy.definition import Definition, Node, head_values, is_constant, parameters, reference, text_at
from ..policy.pure import PURE
from .domain import NotDecidable, Use
from .names import Names, whole
from .values import DERIVED, UNBOUND, Ground, Part, Unbound, Value, Variables, items, keys, shown

_DEPTH = 40
_MOST_WALKED = 20_000
"""Definitions that are walked for one rule: functions that call one another twice make it double with each."""
_ORDER = {"Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}


class Classifier:
    """Walks one rule for one kind. Raises `NotDecidable` with FILE:LINE and the reason."""

    def __init__(
        self, analysis: Analysis, data: Mapping[str, Json], kind: str, fields: Mapping[NamePath, InlineField]
    ) -> None:
        """`fields`: the inline fields of the kind, by where a rule finds them."""
        self._analysis = analysis
        self._names = Names(analysis, data, kind, fields, self._defined)
        self.uses = self._names.uses
        """How fields are used, as far as the rule was walked."""
        self._at = self._names.at
        self._walked = 0
        self._values: dict[int, Value] = {}
        """Of helper rules, which are the same wherever they are used, by their first definition."""

    def rule(self, package: str, definition: Definition) -> Mapping[InlineField, Use]:
        """How the rule uses each field."""
        try:
            self._bodies(package, definition, {})
        except NotDecidable as error:
            raise NotDecidable(f"{self._at[-1].place}:{self._at[-1].line}: {error}") from error
        return self.uses.by_field

    # Definitions

    def _bodies(self, package: str, definition: Definition, scope: Variables) -> list[Value]:
        """Walk all bodies; returns the values that they give."""
        self._at.append(definition)
        self.uses.place = f"{definition.place}:{definition.line}"
        self._walked += 1
        if len(self._at) > _DEPTH:
            raise NotDecidable("helper rules are nested too deep")
        if self._walked > _MOST_WALKED:
            raise NotDecidable("functions call one another too often")
        values = []
        bodies: list[Node] = definition.tree.get("bodies") or [{}]
        for body in bodies:
            inner = dict(scope)
            if body:
                self._query(package, body["query"], inner)
            own = [body["assign"]["value"]] if body.get("assign") else head_values(definition)
            values += [self._expression(package, each, inner) for each in own]
        self._at.pop()
        if self._at:
            self.uses.place = f"{self._at[-1].place}:{self._at[-1].line}"
        return values

    def _defined(self, package: str, definitions: list[Definition], arguments: list[Value] | None) -> Value:
        """The value of a helper rule or of a function's call."""
        if arguments is not None:
            return self._answer(package, definitions, arguments)
        key = id(definitions[0])  # which the analysis holds
        if key not in self._values:
            self._values[key] = self._answer(package, definitions, None)
        return self._values[key]

    def _answer(self, package: str, definitions: list[Definition], arguments: list[Value] | None) -> Value:
        found: list[Value] = []
        for each in definitions:
            scope: Variables = {}
            if arguments is not None:
                patterns = parameters(each)
                if len(patterns) != len(arguments):
                    raise NotDecidable(f"{each.name} is called with {len(arguments)} arguments")
                for parameter, argument in zip(patterns, arguments, strict=True):
                    self._match(package, parameter, argument, scope, new=True)
            elif parameters(each):
                raise NotDecidable(f"the function {each.name} is used without a call")
            found += self._bodies(package, each, scope)
        if len(definitions) == 1 and is_constant(definitions[0]) and len(found) == 1:
            return found[0]
        for value in found:
            self.uses.absorb(value, "is the answer of a helper rule")
        return DERIVED

    # Statements

    def _query(self, package: str, query: Node, scope: Variables) -> None:
        for statement in query["stmts"]:
            if statement.get("with_mods"):
                raise NotDecidable("`with` changes what the rule sees")
            self._literal(package, statement["literal"], scope)

    def _literal(self, package: str, literal: Node, scope: Variables) -> None:
        ((kind, node),) = literal.items()
        if kind == "Expr":
            self.uses.truth(self._expression(package, node["expr"], scope))
        elif kind == "NotExpr":
            self.uses.truth(self._expression(package, node["expr"], dict(scope)))
        elif kind == "SomeVars":
            scope.update({text_at(self._at[-1].source, each): UNBOUND for each in node["vars"]})
        elif kind == "SomeIn":
            keys, elements = self._elements(self._expression(package, node["collection"], scope))
            for part, value in (("key", keys), ("value", elements)):
                if node.get(part) is not None:
                    self._match(package, node[part], value, scope, new=True)
        elif kind == "Every":
            inner = dict(scope)
            keys, elements = self._elements(self._expression(package, node["domain"], scope))
            inner.update(
                {
                    text_at(self._at[-1].source, node[part]): value
                    for part, value in (("key", keys), ("value", elements))
                    if node.get(part)
                }
            )
            self._query(package, node["query"], inner)
        else:
            raise NotDecidable(f"{kind} is not understood")

    def _elements(self, collection: Value) -> tuple[Value, Value]:
        """Keys and elements that iterating gives."""
        if isinstance(collection, Ground):
            if collection.values is None:
                return Ground(), Ground()
            return Ground(keys(collection)), Ground(items(collection))
        self.uses.absorb(collection, "is iterated over")
        return DERIVED, DERIVED

    def _match(self, package: str, pattern: Node, value: Value, scope: Variables, *, new: bool) -> None:
        """Bind variables, or compare. `new`: variables are new here, whatever has their names outside."""
        ((kind, node),) = pattern.items()
        if kind == "Var":
            name = str(node["value"])
            if new or name == "_" or self._names.is_new(package, name, scope):
                scope[name] = value if name != "_" else UNBOUND
                return
        elif kind in ("Array", "Object"):
            if not isinstance(value, Ground):
                self.uses.absorb(value, "is taken apart")
            inner: Value = Ground() if isinstance(value, Ground) else DERIVED
            for part in node["items"] if kind == "Array" else [each[2] for each in node["fields"]]:
                self._match(package, part, inner, scope, new=new)
            return
        self.uses.compare("==", self._expression(package, pattern, scope), value)

    # Expressions

    def _expression(self, package: str, node: Node, scope: Variables) -> Value:
        ((kind, inner),) = node.items()
        if kind in ("String", "RawString", "Number", "Bool"):
            return Ground((inner["value"],))
        if kind == "Null":
            return Ground((None,))
        if kind == "Var":
            return self._names.variable(package, str(inner["value"]), scope)
        if kind == "RefDot":
            return self._names.member(self._expression(package, inner["refr"], scope), Ground((inner["field"][1],)))
        if kind == "RefBrack":
            return self._index(package, inner, scope)
        if kind == "BoolExpr":
            left, right = (self._expression(package, inner[side], scope) for side in ("lhs", "rhs"))
            operator = _ORDER.get(inner["op"], "==")
            return self.uses.compare(operator, left, right)
        if kind == "Membership":
            return self._membership(package, inner, scope)
        if kind == "AssignExpr":
            return self._assign(package, inner, scope)
        if kind in ("Array", "Set", "Object"):
            return self._composite(package, kind, inner, scope)
        if kind == "Call":
            return self._call(package, inner, scope)
        if kind in ("ArithExpr", "BinExpr", "UnaryExpr"):
            return self._arithmetic(package, kind, inner, scope)
        if kind in ("ArrayCompr", "SetCompr", "ObjectCompr"):
            scope = dict(scope)
            self._query(package, inner["query"], scope)
            for part in ("term", "key", "value"):
                if inner.get(part) is not None:
                    self.uses.absorb(self._expression(package, inner[part], scope), "is collected")
            return DERIVED
        raise NotDecidable(f"{kind} is not understood")

    def _index(self, package: str, node: Node, scope: Variables) -> Value:
        base = self._expression(package, node["refr"], scope)
        variable = node["index"].get("Var")
        if variable is not None and (
            variable["value"] == "_" or self._names.is_new(package, str(variable["value"]), scope)
        ):
            keys, elements = self._elements(whole(base))
            scope[str(variable["value"])] = keys if variable["value"] != "_" else UNBOUND
            return elements
        if isinstance(base, Part) and "String" not in node["index"]:
            raise NotDecidable(f"{shown(base)} is looked into by a name that is worked out")
        return self._names.member(base, self._expression(package, node["index"], scope))

    def _composite(self, package: str, kind: str, node: Node, scope: Variables) -> Value:
        parts = node["items"] if kind != "Object" else [part for each in node["fields"] for part in each[1:]]
        values = [self._expression(package, part, scope) for part in parts]
        constants = [
            each.values[0] for each in values if isinstance(each, Ground) and each.values and len(each.values) == 1
        ]
        if len(constants) == len(values):
            if kind != "Object":
                return Ground((constants if kind == "Array" else tuple(constants),))
            keys = constants[::2]
            return (
                Ground((dict(zip(keys, constants[1::2], strict=True)),))
                if all(isinstance(key, str) for key in keys)
                else Ground()
            )
        for each in values:
            self.uses.absorb(each, "is put into a collection")
        return Ground() if all(isinstance(each, Ground) for each in values) else DERIVED

    def _call(self, package: str, node: Node, scope: Variables) -> Value:
        target = reference(node["fcn"])
        if target is None or not target[2]:
            raise NotDecidable("a function is called by a name that is worked out")
        full = (*self._analysis.imports(self._at[-1]).get(target[0], (target[0],)), *target[1])
        home, name = package, full[0]
        if full[0] == "data":
            home, name = ".".join(full[:-1]), full[-1]
        arguments = [self._expression(package, each, scope) for each in node["params"]]
        if (full[0] == "data" or len(full) == 1) and (definitions := self._analysis.definitions(home, name)):
            return self._defined(home, definitions, arguments)
        builtin = ".".join(full)
        if builtin not in PURE:
            raise NotDecidable(f"{builtin} is not one of the functions that always give the same answer")
        for node_of, argument in zip(node["params"], arguments, strict=True):
            if isinstance(argument, Unbound) and "Var" in node_of:
                scope[str(node_of["Var"]["value"])] = DERIVED  # the form f(x, answer)
            else:
                self.uses.absorb(argument, f"is an argument of {builtin}")
        return Ground() if all(isinstance(each, Ground) for each in arguments) else DERIVED

    def _membership(self, package: str, node: Node, scope: Variables) -> Value:
        value = self._expression(package, node["value"], scope)
        collection = self._expression(package, node["collection"], scope)
        if node.get("key") is None:
            return self.uses.member(value, collection)
        for each in (self._expression(package, node["key"], scope), value, collection):
            self.uses.absorb(each, "is looked for by its key")
        return DERIVED

    def _arithmetic(self, package: str, kind: str, node: Node, scope: Variables) -> Value:
        sides = ("expr",) if kind == "UnaryExpr" else ("lhs", "rhs")
        values = [self._expression(package, node[side], scope) for side in sides]
        for each in values:
            self.uses.absorb(each, "is reckoned with")
        if kind == "UnaryExpr" and isinstance(values[0], Ground) and values[0].values is not None:
            return Ground(tuple(-each for each in values[0].values if isinstance(each, int | float)))
        return Ground() if all(isinstance(each, Ground) for each in values) else DERIVED

    def _assign(self, package: str, node: Node, scope: Variables) -> Value:
        right = self._expression(package, node["rhs"], scope)
        if isinstance(right, Unbound):
            left = self._expression(package, node["lhs"], scope)
            self._match(package, node["rhs"], whole(left), scope, new=False)
        else:
            self._match(package, node["lhs"], whole(right), scope, new=node["op"] == "ColEq")
        return DERIVED
