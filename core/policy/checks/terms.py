"""What is known of the terms of a query, and what a comparison tells of the variables in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from ...errors import PolicyError
from ..definition import Node
from .head import constant
from .kinds import ANY, NUMBER, Array, Kind, Object, OneOf, Set, any_of, at, can_equal, either, small, unknown
from .scope import LOCAL, LexicalScope, children


@dataclass(slots=True)
class Terms:
    """Types of the variables of one query, and of the references, calls and comprehensions that were visited in it."""

    scope: LexicalScope
    known: dict[str, Kind]
    """Types of variables."""
    seen: dict[int, Kind | None] = field(default_factory=dict)
    """Types of references, calls and comprehensions, by their nodes' identity."""

    def refuse(self, node: Node, what: str, fix: str) -> NoReturn:
        """Raise `PolicyError`, which names the place, what is wrong and how to fix it."""
        raise PolicyError(f"{self.scope.place(node)}: {what}; {fix}")

    def is_variable(self, node: Node) -> bool:
        """Whether a term is nothing but a variable."""
        return "Var" in node and self.scope.meaning(str(node["Var"]["value"])) == LOCAL

    def kind(self, node: Node) -> Kind | None:
        """The type of a term that was visited; None, or None in it, where nothing is known yet."""
        ((name, inner),) = node.items()
        if id(node) in self.seen:
            return self.seen[id(node)]
        if (scalar := constant(node)) is not None:
            return scalar[0]
        if name == "Var":
            return self.known.get(str(inner["value"])) if inner["value"] != "_" else None
        if name == "Array":
            return small(Array(tuple(map(self.kind, inner["items"]))))
        if name == "Set":
            return small(Set(any_of(map(self.kind, inner["items"]))))
        if name == "Object":
            fields, rest = {}, None
            for _, key, value in inner["fields"]:
                if (known := constant(key)) is not None:
                    fields[known] = self.kind(value)
                else:
                    rest = self.kind(key), self.kind(value)
            return small(Object(tuple(fields.items()), rest))
        return NUMBER if name == "UnaryExpr" else None

    def learn(self, node: Node, kind: Kind | None, *, several: bool = False) -> bool:
        """Whether a term can be of a type; variables in it that nothing is known of are from now on.

        `several`: the type is one of several that are tried, so that variables may be any of them.
        """
        ((name, inner),) = node.items()
        if name == "Var" and self.is_variable(node):
            variable = str(inner["value"])
            if variable == "_":
                return True
            if several:
                found = either(self.known.get(variable), kind)
            elif variable in self.known:
                return can_equal(self.known[variable], kind)
            else:
                found = kind
            if found is not None:
                self.known[variable] = found
            return True
        if name in ("Array", "Object", "Set"):
            if isinstance(kind, OneOf):
                if kind.kinds:
                    return any([self.learn(node, each, several=True) for each in kind.kinds])  # noqa: C419 - each is tried
                for each in children(name, inner):
                    self.learn(each, ANY, several=True)
                return True
            return self._learn_parts(name, inner, kind, several=several)
        return can_equal(self.kind(node), kind)

    def _learn_parts(self, name: str, inner: Node, kind: Kind | None, *, several: bool) -> bool:
        if name == "Array" and isinstance(kind, Array):
            items = inner["items"]
            if len(items) != len(kind.items) and kind.rest is None:
                return False
            parts = [at(kind, (NUMBER, position)) for position in range(len(items))]
            return all(self.learn(each, part, several=several) for each, part in zip(items, parts, strict=True))
        if name == "Set" and isinstance(kind, Set):
            return all(self.learn(each, kind.of, several=several) for each in inner["items"])
        if name == "Object" and isinstance(kind, Object):
            if len(inner["fields"]) != len(kind.fields) and kind.rest is None:
                return False
            for _, key, value in inner["fields"]:
                if (known := constant(key)) is None:
                    self.learn(value, ANY, several=several)
                elif (found := at(kind, known)) is None or not self.learn(value, found, several=several):
                    return False
            return True
        return False

    def same(self, left: Node, right: Node) -> bool:
        """Whether both can be equal; learns what it can of the variables in them."""
        one, other = self.kind(left), self.kind(right)
        if unknown(one) and not unknown(other):
            return self.learn(left, other)
        if unknown(other) and not unknown(one):
            return self.learn(right, one)
        if not unknown(one):
            return can_equal(one, other)
        for here, there in ((left, right), (right, left)):
            if self.is_variable(here) and "Array" not in there and "Object" not in there:
                if self.is_variable(there):
                    return self.learn(here, ANY) and self.learn(there, self.kind(here))
                return self.learn(here, self.kind(there) or ANY)
            if self.is_variable(here):
                return self.learn(there, ANY) and self.learn(here, self.kind(there))
        if "Array" in left and "Array" in right:
            items = left["Array"]["items"], right["Array"]["items"]
            return len(items[0]) == len(items[1]) and all(map(self.same, *items))
        if "Object" in left and "Object" in right:
            fields = [{constant(key): value for _, key, value in each["Object"]["fields"]} for each in (left, right)]
            return fields[0].keys() == fields[1].keys() and all(
                self.same(value, fields[1][key]) for key, value in fields[0].items()
            )
        return False
