"""The head of a definition as OPA sees it: where its value goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..definition import Definition, Node
from .kinds import BOOLEAN, NULL, NUMBER, TEXT, Key
from .scope import CLOSURES, children


def constant(node: Node) -> Key | None:
    """A scalar that is written out, as a key; None for anything else."""
    ((kind, inner),) = node.items()
    if kind in ("String", "RawString"):
        return TEXT, str(inner["value"])
    if kind == "Number":
        value = inner["value"]
        return NUMBER, int(value) if value == int(value) else value
    if kind == "Bool":
        return BOOLEAN, bool(inner["value"])
    return (NULL, None) if kind == "Null" else None


def worked_out(node: Node) -> Iterator[Node]:
    """What in a term is no constant; comprehensions, as for OPA, are."""
    ((kind, inner),) = node.items()
    if kind in ("Array", "Set", "Object"):
        for each in children(kind, inner):
            yield from worked_out(each)
    elif kind not in CLOSURES and constant(node) is None:
        yield node


def steps_of(node: Node) -> tuple[Node, list[Node]]:
    """What a reference starts at, and the terms that follow it."""
    steps: list[Node] = []
    while "RefDot" in node or "RefBrack" in node:
        ((kind, inner),) = node.items()
        steps.append(
            inner["index"] if kind == "RefBrack" else {"String": {"value": inner["field"][1], "span": inner["span"]}}
        )
        node = inner["refr"]
    return node, steps[::-1]


@dataclass(frozen=True, slots=True)
class Body:
    """One of a definition's bodies."""

    query: Node | None
    """None for what has no condition."""
    results: tuple[Node, ...]
    """Its value, or the element of its set; none for `true`."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the value of a definition goes."""

    ground: tuple[Key, ...]
    """The path from `data` on, as far as it is constant."""
    dynamic: tuple[Node, ...]
    """The terms behind it."""
    is_set: bool
    is_function: bool
    bodies: tuple[Body, ...] = field(compare=False)

    @property
    def shape(self) -> str:
        """What all definitions of one path must agree in."""
        if self.is_set:
            return "an object of sets" if self.dynamic else "a set"
        return "an object" if self.dynamic else "a value"

    @classmethod
    def of(cls, definition: Definition, package: str) -> Head:
        """`package`: such as `data.krie.site`."""
        tree = definition.tree
        if definition.is_default:
            shape = tree
            bodies: tuple[Body, ...] = (Body(None, (tree["value"],)),)
        else:
            shape = next(iter(tree["head"].values()))
            value = shape["key"] if shape.get("key") else (shape.get("assign") or {}).get("value")
            bodies = tuple(_bodies(tree["bodies"], value))
        _, steps = steps_of(shape["refr"])
        keys = [constant(each) for each in steps]
        size = keys.index(None) if None in keys else len(keys)
        ground = (*((TEXT, each) for each in (*package.split("."), definition.name)), *keys[:size])
        is_set = "Set" in (tree.get("head") or {})
        return cls(ground, tuple(steps[size:]), is_set, definition.is_function, bodies)  # type: ignore[arg-type]


def _bodies(bodies: Iterable[Node], value: Node | None) -> Iterator[Body]:
    found = False
    for each in bodies:
        found = True
        own = each["assign"]["value"] if each.get("assign") else None if each["is_else"] else value
        yield Body(each["query"], (own,) if own is not None else ())
    if not found:
        yield Body(None, (value,) if value is not None else ())
