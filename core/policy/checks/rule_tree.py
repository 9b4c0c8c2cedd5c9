"""The types of all rules by their paths, as OPA's type checker keeps them: a definition adds to what its path has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .kinds import ANY, TEXT, Key, Kind, Object, OneOf, Set, at, either, is_empty, values

Step = Key | None
"""A constant in a reference; None: a variable or another expression."""


@dataclass(slots=True)
class Tree:
    """What is at a path, and below it."""

    kind: Kind | None = None
    children: dict[Key, Tree] = field(default_factory=dict)

    def put(self, path: Sequence[Key], kind: Kind) -> None:
        """Set what is at a path."""
        node = self
        for key in path:
            node = node.children.setdefault(key, Tree())
        node.kind = kind

    def add(self, path: Sequence[Key], kind: Kind) -> None:
        """One more definition at a path; objects above and below know of it too."""
        node = self
        for number, key in enumerate(path, 1):
            found = node.children.get(key)
            if found is None:
                found = node.children[key] = Tree()
            elif isinstance(found.kind, Object) and number < len(path):
                found.kind = _inserted(found.kind, path[number:], kind)
            node = found
        node.kind = _merged(node.kind, kind)
        if isinstance(kind, Object) and isinstance(node.kind, Object):
            for below, each in node.leaves():
                if isinstance(node.kind, Object):
                    node.kind = _inserted(node.kind, below, each)

    def extent(self) -> Kind:
        """The whole document, to which data may add more."""
        if self.kind is not None:
            return self.kind
        return Object(tuple((key, each.extent()) for key, each in self.children.items()), (TEXT, ANY))

    def leaves(self) -> Iterator[tuple[tuple[Key, ...], Kind]]:
        """The nearest below that are known, with their paths."""
        for key, each in self.children.items():
            if each.kind is not None:
                yield (key,), each.kind
            else:
                yield from (((key, *path), kind) for path, kind in each.leaves())


def find(layers: Sequence[Tree], path: Sequence[Step]) -> Kind | None:
    """The type of a reference below `data`; `layers`: the last one hides those before it where it has something."""
    for layer in reversed(layers):
        node = layer
        if not node.children:
            continue
        for number, step in enumerate(path):
            below = node.children.get(step) if step is not None else None
            if node.kind is not None and below is None:
                return selected(node.kind, path[number:])
            if step is None:
                return selected(node.extent(), path[number:])
            if below is None:
                break
            node = below
        else:
            return node.extent()
    return ANY


def selected(kind: Kind | None, path: Sequence[Step]) -> Kind | None:
    """What a reference into a value of this type gives."""
    for step in path:
        if step is not None:
            kind = at(kind, step)
        elif is_empty(kind):
            kind = ANY
        else:
            kind = values(kind)
        if kind is None:
            return None
    return kind


def _merged(one: Kind | None, other: Kind) -> Kind | None:
    if isinstance(one, OneOf) and not isinstance(other, OneOf):
        one, other = other, one
    if isinstance(one, Object) and not one.fields:
        if isinstance(other, Object) and not other.fields:
            if one.rest is None or other.rest is None:
                return other if one.rest is None else one
            value = _merged(one.rest[1], other.rest[1]) if other.rest[1] is not None else one.rest[1]
            return Object((), (either(one.rest[0], other.rest[0]), value))
        if isinstance(other, OneOf) and one.rest is not None:
            for each in other.kinds:
                if isinstance(each, Object) and not each.fields and each.rest is not None:
                    rest = either(each.rest[0], one.rest[0]), either(each.rest[1], one.rest[1])
                    return OneOf(other.kinds - {each} | {Object((), rest)})
    if isinstance(one, Set) and isinstance(other, Set):
        return Set(either(one.of, other.of))
    return either(one, other)


def _inserted(kind: Object, path: Sequence[Key], value: Kind) -> Object:
    key = path[0][0]
    below: Kind = value if len(path) == 1 else _inserted(Object(), path[1:], value)
    if kind.rest is None:
        return Object(kind.fields, (key, below))
    return Object(kind.fields, (either(kind.rest[0], key), either(kind.rest[1], below)))
