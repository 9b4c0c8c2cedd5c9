"""Rules and functions that reach themselves: OPA refuses them, and the embedded engine runs out of stack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...errors import PolicyError
from ...events.inline import NamePath
from ..definition import Definition
from .mentions import Mention

Node = tuple[NamePath, Definition]
"""NamePath of what is defined, from `data` on, and one of its definitions."""


class CallGraph:
    """What each definition mentions. A path stands for all that is defined at it, above it and below it.

    Keys that are not names end a path, as they do for the embedded engine, which takes `u[1] := u[2]` for recursive.
    """

    def __init__(self) -> None:
        """Start with an empty graph."""
        self._packages: dict[NamePath, dict[str, list[Node]]] = {}
        self._mentioned: dict[int, list[tuple[NamePath, str]]] = {}
        self._users: dict[int, list[Node]] | None = None

    def add(self, package: str, definition: Definition, mentioned: Iterable[Mention]) -> None:
        """`package`: such as `data.krie.site`."""
        home = tuple(package.split("."))
        node = ((*home, definition.name, *definition.path), definition)
        self._packages.setdefault(home, {}).setdefault(definition.name, []).append(node)
        self._mentioned[id(definition)] = [
            (each.path, each.scope.place(each.node)) for each in mentioned if each.path[:1] == ("data",)
        ]

    def check(self) -> list[Definition]:
        """All definitions, each after those that it mentions.

        Raises `PolicyError` for the first circle, with all of its places.
        """
        done: dict[int, Definition] = {}
        for names in self._packages.values():
            for start in (node for nodes in names.values() for node in nodes):
                self._follow(start, done)
        return list(done.values())

    def dependents(self, path: NamePath) -> Iterator[NamePath]:
        """Paths of the rules that a reference may mean, and of all that depend on them."""
        if self._users is None:
            self._users = {}
            for names in self._packages.values():
                for node in (node for nodes in names.values() for node in nodes):
                    for used, _ in self._next(node):
                        self._users.setdefault(id(used[1]), []).append(node)
        todo, seen = list(self._at(path)), set[int]()
        while todo:
            found, definition = todo.pop()
            if id(definition) not in seen:
                seen.add(id(definition))
                yield found
                todo += self._users.get(id(definition), ())

    def _follow(self, start: Node, done: dict[int, Definition]) -> None:
        """Depth first, without recursion of its own."""
        way: list[tuple[Node, str, Iterator[tuple[Node, str]]]] = []
        on_way: dict[int, int] = {}
        todo: tuple[Node, str] | None = (start, "")
        while todo is not None or way:
            if todo is not None and id(todo[0][1]) not in done:
                on_way[id(todo[0][1])] = len(way)
                way.append((*todo, self._next(todo[0])))
            todo = next(way[-1][2], None) if way else None
            if todo is None:
                if way:
                    (_, definition), _, _ = way.pop()
                    done[id(definition)] = definition
                    del on_way[id(definition)]
                continue
            if (first := on_way.get(id(todo[0][1]))) is not None:
                circle = [*((node[0], place) for node, place, _ in way[first + 1 :]), (todo[0][0], todo[1])]
                names = " -> ".join((_shown(way[first][0][0]), *(f"{_shown(path)} ({at})" for path, at in circle)))
                raise PolicyError(
                    f"{circle[0][1]}: {_shown(way[first][0][0])} is recursive, which Rego does not have: {names}"
                )

    def _next(self, node: Node) -> Iterator[tuple[Node, str]]:
        for path, place in self._mentioned[id(node[1])]:
            for target in self._at(path):
                yield target, place

    def _at(self, path: NamePath) -> Iterator[Node]:
        for home, names in self._packages.items():
            if path[: len(home)] != home[: len(path)]:
                continue
            found: Mapping[str, list[Node]] = names
            if len(path) > len(home):
                found = {path[len(home)]: names.get(path[len(home)], [])}
            for node in (node for nodes in found.values() for node in nodes):
                if path[: len(node[0])] == node[0][: len(path)]:
                    yield node


def _shown(path: NamePath) -> str:
    return ".".join(path[1:])
