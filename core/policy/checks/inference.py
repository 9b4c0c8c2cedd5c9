"""Walks a policy with what is known of every value, and tells what cannot be meant.

It finds comparisons that always fail, names that nothing has, and values that no field takes. What it does not
understand is anything, of which nothing is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...events.inline import NamePath
from ..definition import Node, parameters, reference
from .comparison import unknown_texts
from .expressions import Expressions, Found, Types
from .scope import LOCAL, LexicalScope, declarations, pattern_variables
from .types import (
    ANY,
    BOOLEAN,
    OBJECT,
    SET,
    Type,
    shared,
    union,
)
from .undefined import FIX, Undefined

_DEPTH = 40
"""Rules that are followed from one to the next."""
_LONGEST_TEXT = 60


@dataclass(slots=True)
class Inference(Expressions):
    """One policy: its definitions and their statements."""

    _answers: dict[NamePath, Type] = field(default_factory=dict, init=False)

    def definition(self, found: Found) -> Type:
        """Walk one definition; its value."""
        package, definition, scope = found
        path = (*package.split("."), definition.name, *definition.path)
        tree = definition.tree
        patterns = parameters(definition)
        scope = scope.within(frozenset(name for each in patterns for name, _ in pattern_variables(each)))
        known: Types = {}
        for pattern, argument in zip(patterns, self.passed.get(path, ()), strict=False):
            self.bind(pattern, argument, known)
            if "String" in pattern or "RawString" in pattern:
                types = self.expression(pattern, scope, known), argument
                for what, fix in unknown_texts(*types, "=="):
                    self.tell(scope, pattern, what, fix)
        if definition.is_default:
            return self.expression(tree["value"], scope, known)
        shape = next(iter(tree["head"].values()))
        values = []
        for body in tree["bodies"] or [{"query": {"stmts": []}}]:
            inner = dict(known)
            own = self.query(body["query"], scope, inner)
            assigned = body.get("assign") or (None if body.get("is_else") else shape.get("assign"))
            for value in (assigned["value"] if assigned else None, shape.get("key")):
                if value is not None:
                    self.defined(value, own, inner, is_value=True)
            values.append(self.expression(assigned["value"], own, inner) if assigned else BOOLEAN)
            if shape.get("key"):
                values[-1] = Type(SET.kinds, items=self.expression(shape["key"], own, inner))
        whole = reference(shape["refr"])
        return union(values) if whole is not None and whole[2] else OBJECT

    def answer(self, path: NamePath) -> Type:
        """What a rule is, or a function answers."""
        if self.silent > _DEPTH:
            return ANY
        if path not in self._answers:
            self._answers[path] = ANY  # for whoever asks meanwhile
            self.silent += 1
            whole = union(self.definition(each) for each in self.definitions[path])
            self._answers[path] = whole if path in self.asked.alone else shared(whole)
            self.silent -= 1
        return self._answers[path]

    # Statements

    def query(self, query: Node, scope: LexicalScope, known: Types) -> LexicalScope:
        """Walk the statements, learning what variables are; the scope within."""
        declared = frozenset(name for name, _ in declarations(query, scope))
        scope = scope.within(declared)
        for name in declared:
            known.pop(name, None)
        for statement in query["stmts"]:
            before = self.replaced
            for each in statement.get("with_mods") or ():
                self.expression(each["as"], scope, known)
                if (target := scope.full(each["refr"])) is not None:
                    self.replaced |= {target[0]}
            self._statement(statement["literal"], scope, known)
            self.replaced = before
        return scope

    def _statement(self, literal: Node, scope: LexicalScope, known: Types) -> None:
        ((kind, node),) = literal.items()
        if kind == "Expr":
            assigned = node["expr"].get("AssignExpr")
            self.defined(node["expr"], scope, known, is_value=False)
            if assigned is None:
                self.expression(node["expr"], scope, known)
            else:
                self._assign(assigned, scope, known)
        elif kind == "NotExpr":
            self.expression(node["expr"], scope, dict(known))
            if (part := self._undefined(known).under_not(node["expr"], scope)) is not None:
                what = f"where {_text(part, scope)} is undefined, `not` holds in the embedded engine, and not in OPA"
                self.tell(scope, part, what, FIX)
        elif kind == "SomeIn":
            collection = self.expression(node["collection"], scope, known)
            if node.get("key") is not None:
                self.bind(node["key"], collection.key(), known)
            self.bind(node["value"], collection.element(), known)
            self.compare(
                scope, node["value"], "in", (self.expression(node["value"], scope, known), collection.element())
            )
        elif kind == "Every":
            collection = self.expression(node["domain"], scope, known)
            inner, names = dict(known), []
            for part, type_ in (("key", collection.key()), ("value", collection.element())):
                if node.get(part):
                    names.append(scope.text(node[part]))
                    inner[names[-1]] = type_
            self.query(node["query"], scope.within(frozenset(names)), inner)

    def defined(self, node: Node, scope: LexicalScope, known: Types, *, is_value: bool) -> None:
        """Tell where the engines differ because a part of it is undefined."""
        part = self._undefined(known).as_values(node, scope, is_value=is_value)
        if part is not None:
            what = f"where {_text(part, scope)} is undefined, `in` is so in OPA, and false in the embedded engine"
            self.tell(scope, part, what, FIX)

    def _undefined(self, known: Types) -> Undefined:
        world = self.world
        roots = frozenset(each[0] for each in self.replaced)
        return Undefined(self.definitions, world.input, world.always, world.data, roots, known)

    def _assign(self, node: Node, scope: LexicalScope, known: Types) -> None:
        left, right = node["lhs"], node["rhs"]
        if node["op"] == "ColEq":
            self.bind(left, shared(self.expression(right, scope, known)), known)
            return
        new_left, new_right = (self._is_new(each, scope, known) for each in (left, right))
        if new_left and new_right:
            return
        # Each side once: they may hold others in turn.
        if new_right:
            one = self.expression(left, scope, known)
            self.bind(right, one, known)
            other = self.expression(right, scope, known)
        else:
            other = self.expression(right, scope, known)
            if new_left:
                self.bind(left, other, known)
            one = self.expression(left, scope, known)
        self.compare(scope, left, "=", (one, other))

    def _is_new(self, node: Node, scope: LexicalScope, known: Types) -> bool:
        """Whether a side of `=` has variables that nothing is known of yet."""
        return any(name not in known and scope.meaning(name) == LOCAL for name, _ in pattern_variables(node))


def _text(node: Node, scope: LexicalScope) -> str:
    text = " ".join(scope.text(next(iter(node.values()))["span"]).split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
