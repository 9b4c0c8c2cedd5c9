"""Walks a policy with what is known of every value, and tells what cannot be meant.

It finds comparisons that always fail, names that nothing has, and values that no field takes. What it does not
understand is anything, of which nothing is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...events.inline import Path
from ..definition import Definition, Node, parameters, reference
from .comparison import differences, plural, similar
from .functions import builtins
from .scope import CLOSURES, LOCAL, Scope, declarations, pattern_variables
from .types import (
    ANY,
    ARRAY,
    BOOLEAN,
    NULL,
    NUMBER,
    OBJECT,
    SET,
    TEXT,
    Type,
    of_builtin,
    of_constant,
    overlap,
    shared,
    union,
)
from .undefined import MEND, Undefined

Report = Callable[[str, str, str], None]
"""Gets place, what is wrong, and how to mend it."""
Types = dict[str, Type]
_ARITHMETIC = {
    "Add": "plus",
    "Sub": "minus",
    "Mul": "mul",
    "Div": "div",
    "Mod": "rem",
    "Union": "or",
    "Intersection": "and",
}
_DEPTH = 40
"""Rules that are followed from one to the next."""
_LONGEST_TEXT = 60
_COMPARISONS = {"Eq": "==", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}


@dataclass(slots=True)
class World:
    """What is known from outside of the rules."""

    input: Type = ANY
    data: Type = ANY
    always: frozenset[str] = frozenset()
    """Fields that each of the events has."""


Found = tuple[str, Definition, Scope]
"""A package, one of its definitions, and the scope of its file."""
Definitions = Mapping[Path, list[Found]]
"""By path from `data` on."""


@dataclass(slots=True)
class Inference:
    """One policy. `definitions` by path from `data` on."""

    definitions: Definitions
    world: World
    report: Report
    passed: dict[Path, list[Type]] = field(default_factory=dict)
    """Arguments that calls pass to a function: grows while the calls are walked."""
    _answers: dict[Path, Type] = field(default_factory=dict)
    _silent: int = 0
    _replaced: frozenset[str] = frozenset()
    """`input` and `data` where `with` replaces parts of them."""

    def definition(self, found: Found) -> Type:
        """Walk one definition; its value."""
        package, definition, scope = found
        path = (*package.split("."), definition.name, *definition.path)
        tree = definition.tree
        patterns = parameters(definition)
        scope = scope.within(frozenset(name for each in patterns for name, _ in pattern_variables(each)))
        known: Types = {}
        for pattern, argument in zip(patterns, self.passed.get(path, ()), strict=False):
            self._bind(pattern, argument, known)
        if definition.is_default:
            return self._expression(tree["value"], scope, known)
        shape = next(iter(tree["head"].values()))
        values = []
        for body in tree["bodies"] or [{"query": {"stmts": []}}]:
            inner = dict(known)
            own = self._query(body["query"], scope, inner)
            assigned = body.get("assign") or (None if body.get("is_else") else shape.get("assign"))
            for value in (assigned["value"] if assigned else None, shape.get("key")):
                if value is not None:
                    self._defined(value, own, inner, is_value=True)
            values.append(self._expression(assigned["value"], own, inner) if assigned else BOOLEAN)
            if shape.get("key"):
                values[-1] = Type(SET.kinds, items=self._expression(shape["key"], own, inner))
        whole = reference(shape["refr"])
        return union(values) if whole is not None and whole[2] else OBJECT

    def _answer(self, path: Path) -> Type:
        """What a rule is, or a function answers."""
        if self._silent > _DEPTH:
            return ANY
        if path not in self._answers:
            self._answers[path] = ANY  # for whoever asks meanwhile
            self._silent += 1
            self._answers[path] = shared(union(self.definition(each) for each in self.definitions[path]))
            self._silent -= 1
        return self._answers[path]

    def _tell(self, scope: Scope, node: Node, what: str, mend: str) -> None:
        if not self._silent:
            self.report(scope.place(node), what, mend)

    # Statements

    def _query(self, query: Node, scope: Scope, known: Types) -> Scope:
        """Walk the statements, learning what variables are; the scope within."""
        declared = frozenset(name for name, _ in declarations(query, scope))
        scope = scope.within(declared)
        for name in declared:
            known.pop(name, None)
        for statement in query["stmts"]:
            before = self._replaced
            for each in statement.get("with_mods") or ():
                self._expression(each["as"], scope, known)
                if (target := scope.full(each["refr"])) is not None:
                    self._replaced |= {target[0][0]}
            self._statement(statement["literal"], scope, known)
            self._replaced = before
        return scope

    def _statement(self, literal: Node, scope: Scope, known: Types) -> None:
        ((kind, node),) = literal.items()
        if kind == "Expr":
            assigned = node["expr"].get("AssignExpr")
            self._defined(node["expr"], scope, known, is_value=False)
            if assigned is None:
                self._expression(node["expr"], scope, known)
            else:
                self._assign(assigned, scope, known)
        elif kind == "NotExpr":
            self._expression(node["expr"], scope, dict(known))
            if (part := self._undefined(known).under_not(node["expr"], scope)) is not None:
                what = f"where {_text(part, scope)} is undefined, `not` holds in the embedded engine, and not in OPA"
                self._tell(scope, part, what, MEND)
        elif kind == "SomeIn":
            collection = self._expression(node["collection"], scope, known)
            if node.get("key") is not None:
                self._bind(node["key"], collection.key(), known)
            self._bind(node["value"], collection.element(), known)
        elif kind == "Every":
            collection = self._expression(node["domain"], scope, known)
            inner, names = dict(known), []
            for part, type_ in (("key", collection.key()), ("value", collection.element())):
                if node.get(part):
                    names.append(scope.text(node[part]))
                    inner[names[-1]] = type_
            self._query(node["query"], scope.within(frozenset(names)), inner)

    def _defined(self, node: Node, scope: Scope, known: Types, *, is_value: bool) -> None:
        part = self._undefined(known).as_values(node, scope, is_value=is_value)
        if part is not None:
            what = f"where {_text(part, scope)} is undefined, `in` is so in OPA, and false in the embedded engine"
            self._tell(scope, part, what, MEND)

    def _undefined(self, known: Types) -> Undefined:
        world = self.world
        return Undefined(self.definitions, world.input, world.always, world.data, self._replaced, known)

    def _assign(self, node: Node, scope: Scope, known: Types) -> None:
        left, right = node["lhs"], node["rhs"]
        if node["op"] == "ColEq":
            self._bind(left, self._expression(right, scope, known), known)
            return
        new_left, new_right = (self._is_new(each, scope, known) for each in (left, right))
        if new_left and not new_right:
            self._bind(left, self._expression(right, scope, known), known)
        elif new_right and not new_left:
            self._bind(right, self._expression(left, scope, known), known)
        elif not new_left:
            types = self._expression(left, scope, known), self._expression(right, scope, known)
            self._compare(scope, left, "=", types)

    def _is_new(self, node: Node, scope: Scope, known: Types) -> bool:
        """Whether a side of `=` has variables that nothing is known of yet."""
        return any(name not in known and scope.meaning(name) == LOCAL for name, _ in pattern_variables(node))

    def _bind(self, pattern: Node, value: Type, known: Types) -> None:
        ((kind, inner),) = pattern.items()
        if kind == "Var":
            known.setdefault(str(inner["value"]), value)
        elif kind == "Array":
            for each in inner["items"]:
                self._bind(each, value.element() if value.kinds == ARRAY.kinds else ANY, known)
        elif kind == "Object":
            for _, key, each in inner["fields"]:
                member = value.member(str(key["String"]["value"])) if "String" in key else None
                self._bind(each, member or ANY, known)

    # Expressions

    def _expression(self, node: Node, scope: Scope, known: Types) -> Type:
        ((kind, inner),) = node.items()
        if kind in ("String", "RawString", "Number", "Bool"):
            return of_constant(inner["value"])
        if kind == "Null":
            return NULL
        if kind in ("Var", "RefDot", "RefBrack"):
            return self._reference(node, scope, known)
        if kind == "BoolExpr":
            types = self._expression(inner["lhs"], scope, known), self._expression(inner["rhs"], scope, known)
            self._compare(scope, inner["lhs"], _COMPARISONS[inner["op"]], types)
            return BOOLEAN
        if kind == "Membership":
            return self._membership(inner, scope, known)
        if kind in ("Array", "Set"):
            items = [self._expression(each, scope, known) for each in inner["items"]]
            return Type(frozenset({kind.lower()}), items=union(items) if items else None)
        if kind == "Object":
            return self._object(inner, scope, known)
        if kind == "Call":
            return self._call(node, scope, known)
        if kind in ("ArithExpr", "BinExpr"):
            types_ = [self._expression(inner[side], scope, known) for side in ("lhs", "rhs")]
            name = _ARITHMETIC[inner["op"]]
            self._arguments(scope, node, name, types_, builtins()[name].arguments)
            return SET if kind == "BinExpr" else NUMBER if name != "minus" else union([NUMBER, SET])
        if kind == "UnaryExpr":
            self._expression(inner["expr"], scope, known)
            return NUMBER
        if kind in CLOSURES:
            own = dict(known)
            within = self._query(inner["query"], scope, own)
            results = [inner[part] for part in ("term", "key", "value") if inner.get(part)]
            for each in results:
                self._defined(each, within, own, is_value=True)
            parts = [self._expression(each, within, own) for each in results]
            if kind == "ObjectCompr":
                return Type(OBJECT.kinds, items=parts[-1])
            return Type(ARRAY.kinds if kind == "ArrayCompr" else SET.kinds, items=parts[0])
        return ANY

    def _object(self, node: Node, scope: Scope, known: Types) -> Type:
        members: dict[str, Type] = {}
        closed = True
        for _, key, value in node["fields"]:
            self._expression(key, scope, known)
            type_ = self._expression(value, scope, known)
            closed = closed and "String" in key
            if closed:
                members[str(key["String"]["value"])] = type_
        return Type(OBJECT.kinds, members=members if closed else None)

    def _reference(self, node: Node, scope: Scope, known: Types) -> Type:
        """Follow it name by name; rules of the policy are found by the longest part that is one's path."""
        steps = []
        base = node
        while "RefDot" in base or "RefBrack" in base:
            ((kind, inner),) = base.items()
            steps.append(inner["index"] if kind == "RefBrack" else {"String": {"value": inner["field"][1]}})
            base = inner["refr"]
        steps.reverse()
        if "Var" not in base:
            return self._follow(self._expression(base, scope, known), steps, node, scope, known)
        name = str(base["Var"]["value"])
        if not (start := scope.meaning(name)):
            return self._follow(known.get(name, ANY), steps, node, scope, known)
        written = list(start[1:])
        while steps and "String" in steps[0]:
            written.append(str(steps.pop(0)["String"]["value"]))
        if start[0] == "data" and written[:1] == ["krie"] and "data" not in self._replaced:
            return self._of_package(("data", *written), steps, node, scope, known)
        unknown = start[0] in self._replaced
        value = ANY if unknown else self.world.input if start[0] == "input" else self.world.data
        if start[0] in ("input", "data"):
            return self._follow(value, [*({"String": {"value": each}} for each in written), *steps], node, scope, known)
        return ANY

    def _of_package(self, path: Path, steps: list[Node], node: Node, scope: Scope, known: Types) -> Type:
        for size in range(len(path), 0, -1):
            if (found := path[:size]) in self.definitions:
                if self.definitions[found][0][1].is_function:
                    return ANY
                rest = [*({"String": {"value": each}} for each in path[size:]), *steps]
                return self._follow(self._answer(found), rest, node, scope, known)
        packages = {tuple(package.split(".")) for each in self.definitions.values() for package, _, _ in each}
        below = any(each[: len(path)] == path for each in (*packages, *self.definitions))
        if not below and not steps:
            names = [".".join(each) for each in self.definitions]
            self._tell(scope, node, f"{'.'.join(path)} is no rule and no package", similar(".".join(path), names))
        for each in steps:
            self._index(each, ANY, scope, known)
        return ANY

    def _follow(self, value: Type, steps: Iterable[Node], node: Node, scope: Scope, known: Types) -> Type:
        for step in steps:
            if value.known and not value.kinds & {"object", "array", "set"}:
                self._tell(scope, node, f"{value.shown} has nothing below it", "drop what follows it")
                value = ANY
            text = str(step["String"]["value"]) if "String" in step else None
            if "String" in step and "object" in value.kinds:
                member = value.member(text or "")
                if member is None:
                    whose = value.name or "the object"
                    mend = similar(text or "", value.members or (), f"; {whose} has ")
                    self._tell(scope, node, f"{whose} has no {text}", mend)
                value = member or ANY
            else:
                if text is not None and value.kinds == SET.kinds and not overlap(value.element(), TEXT):
                    self._tell(
                        scope, node, f"{value.shown} of {plural(value.items)} has no {text}", "drop what follows it"
                    )
                if value.kinds == ARRAY.kinds and text is not None:
                    self._tell(scope, node, f"an array has no {text}", "count its elements from 0")
                self._index(step, value, scope, known)
                value = value.element() if value.kinds != SET.kinds or value.items is not None else ANY
        return value

    def _index(self, step: Node, value: Type, scope: Scope, known: Types) -> None:
        name = str(step["Var"]["value"]) if "Var" in step else ""
        if name and name not in known and scope.meaning(name) == LOCAL:
            known[name] = value.key() if name != "_" else ANY
            return
        index = self._expression(step, scope, known)
        literal = value.kinds == OBJECT.kinds and value.members and value.items is None and not value.name
        if value.kinds == SET.kinds or literal:  # what is looked up in a set, or among the keys of a literal object
            keys = replace(TEXT, texts=frozenset(value.members or ())) if literal else value.element()
            self._compare(scope, step, "in", (index, keys))

    def _membership(self, node: Node, scope: Scope, known: Types) -> Type:
        if node.get("key") is not None:
            self._expression(node["key"], scope, known)
        value = self._expression(node["value"], scope, known)
        collection = self._expression(node["collection"], scope, known)
        if collection.known and not collection.kinds & {"array", "set", "object"}:
            mend = (
                "compare by ==, or look for a part of a text by contains()"
                if "string" in collection.kinds
                else "use =="
            )
            self._tell(scope, node["collection"], f"{collection.shown} is no collection, so nothing is in it", mend)
        elif not (collection.members and collection.items is None and "object" in collection.kinds):
            self._compare(scope, node["value"], "in", (value, collection.element()))
        return BOOLEAN

    def _call(self, node: Node, scope: Scope, known: Types) -> Type:
        call = node["Call"]
        found = reference(call["fcn"])
        if found is None or found[0] in scope.declared:
            return ANY
        path = (*(scope.meaning(found[0]) or (found[0],)), *found[1])
        builtin = builtins().get(".".join(path))
        arity = len(builtin.arguments) if builtin is not None else 0
        types = []
        for position, each in enumerate(call["params"]):
            new = position == arity and builtin is not None and "Call" not in each
            types.append(ANY if new else self._expression(each, scope, known))
        if path in self.definitions:
            before = self.passed.get(path, types)
            self.passed[path] = [shared(union(pair)) for pair in zip(before, types, strict=False)]
            return self._answer(path)
        if builtin is None or builtin.variadic:
            return ANY
        self._arguments(scope, node, ".".join(path), types, builtin.arguments)
        answer = of_builtin(builtin.result)
        if len(call["params"]) > arity:
            self._bind(call["params"][arity], answer, known)
        return answer

    def _arguments(self, scope: Scope, node: Node, name: str, types: list[Type], wanted: Iterable[object]) -> None:
        for number, (type_, declared) in enumerate(zip(types, wanted, strict=False), 1):
            expected = of_builtin(declared)
            if not overlap(type_, expected):
                words = f"argument {number} of {name}" if name not in _ARITHMETIC.values() else f"an operand of {name}"
                inner = type_.items is not None and bool(type_.kinds & expected.kinds)
                what = f"a collection of {plural(type_.items)}" if inner and type_.items else type_.shown
                elements = f" of {plural(expected.items)}" if inner and expected.items else ""
                self._tell(scope, node, f"{words} is {what}", f"it must be {expected.shown}{elements}")

    def _compare(self, scope: Scope, node: Node, operator: str, types: tuple[Type, Type]) -> None:
        for what, mend in differences(*types, operator):
            self._tell(scope, node, what, mend)


def _text(node: Node, scope: Scope) -> str:
    text = " ".join(scope.text(next(iter(node.values()))["span"]).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
