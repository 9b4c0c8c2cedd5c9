"""Definitions that exclude each other: of unlike shapes at one path, and those below a path that has a value itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...errors import PolicyError
from ..definition import Definition, parameters
from ..module import Module
from .head import Head
from .kinds import Key


@dataclass(slots=True)
class _At:
    """What is defined at a path."""

    definitions: list[tuple[Definition, Head]] = field(default_factory=list)
    below: dict[Key, _At] = field(default_factory=dict)


def check_conflicts(modules: Iterable[Module]) -> None:
    """Raise `PolicyError` for the first two that exclude each other, with both places."""
    root = _At()
    for module in modules:
        for definition in module.definitions:
            head = Head.of(definition, module.package)
            node = root
            for key in head.ground:
                node = node.below.setdefault(key, _At())
            node.definitions.append((definition, head))
    todo = [root]
    while todo:
        node = todo.pop()
        _check(node)
        todo += node.below.values()


def _check(node: _At) -> None:
    first: tuple[str, Definition] | None = None
    default: Definition | None = None
    for definition, head in node.definitions:
        shape = f"a function of {len(parameters(definition))}" if head.is_function else head.shape
        first = first or (shape, definition)
        if shape != first[0]:
            raise PolicyError(
                f"{_place(definition)}: {_name(definition)} is {shape} here and {first[0]} at {_place(first[1])}; "
                "rename one"
            )
        if definition.is_default and default is not None:
            raise PolicyError(
                f"{_place(definition)}: {_name(definition)} has a default already, at {_place(default)}; keep one of "
                "them"
            )
        default = definition if definition.is_default else default
        for other, below in _below(node):
            if not head.dynamic:
                raise PolicyError(
                    f"{_place(other)}: {_name(other)} lies below {_name(definition)}, which is {shape} at "
                    f"{_place(definition)}; rename one"
                )
            if below.is_function:
                raise PolicyError(
                    f"{_place(other)}: {_name(other)} is a function below {_name(definition)}, which has keys that are "
                    f"worked out, at {_place(definition)}; rename one"
                )


def _below(node: _At) -> Iterable[tuple[Definition, Head]]:
    todo = list(node.below.values())
    while todo:
        each = todo.pop(0)
        yield from each.definitions
        todo += each.below.values()


def _place(definition: Definition) -> str:
    return f"{definition.place}:{definition.line}"


def _name(definition: Definition) -> str:
    return ".".join((definition.name, *definition.path))
