"""Functions of several fields as decision diagrams: equal ones are one node, so that policies can be compared whole.

A node asks one column for its cell and has a child for each; below are 0 and 1, or in a difference what differs there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from ..events.inline import InlineField
from ..tier.columns import Column
from ..tier.domain import Use, answers

MOST_NODES = 200_000
_MOST_ORDERS = 120
_ORDERS_S = 2.0
_BELOW = 1 << 30
"""The column of what asks none."""
Leaf = tuple[tuple[str, bool, bool], ...]
"""Rules of which the answers differ: whether the old one fires, and the new one."""


class TooLarge(Exception):
    """A comparison needs more nodes than that."""


class Firing(NamedTuple):
    """When one rule of one policy fires."""

    uses: Mapping[InlineField, Use]
    hits: frozenset[tuple[Any, ...]]
    """What `answers` of its fields, in the order of `uses`, gives where it fires."""


class Pair(NamedTuple):
    """One rule in both policies; None: that one does not have it for this kind."""

    rule: str
    old: Firing | None
    new: Firing | None
    same_answer: bool
    """Both ask for the same where they fire."""


class Row(NamedTuple):
    """Inputs that differ alike: any whose cells are among these. Rows of a difference have none in common."""

    cells: tuple[frozenset[int], ...]
    """By column, numbers of cells."""
    leaf: Leaf


class _Diagrams:
    """Nodes by what they are."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, int] = {}
        self.nodes: list[tuple[int, tuple[int, ...]]] = [(_BELOW, ()), (_BELOW, ())]
        """Column and children; the first two are 0 and 1."""
        self.leaves: dict[int, Leaf] = {}

    def leaf(self, value: Leaf) -> int:
        made = self._id(("leaf", value), (_BELOW, ()))
        self.leaves[made] = value
        return made

    def node(self, level: int, children: tuple[int, ...]) -> int:
        if all(each == children[0] for each in children):
            return children[0]
        return self._id((level, children), (level, children))

    def _id(self, key: Hashable, node: tuple[int, tuple[int, ...]]) -> int:
        if key not in self._ids:
            if len(self.nodes) >= MOST_NODES:
                raise TooLarge
            self._ids[key] = len(self.nodes)
            self.nodes.append(node)
        return self._ids[key]

    def child(self, node: int, level: int, cell: int) -> int:
        """Where a cell of a column leads to; the node itself where it does not ask that column."""
        own, children = self.nodes[node]
        return children[cell] if own == level else node


def difference(pairs: Sequence[Pair], columns: Sequence[Column]) -> tuple[tuple[Column, ...], list[Row]]:
    """All inputs for which any of the rules answers differently, in as few rows as were found, with their columns.

    Exact where each rule depends on nothing but answers about these columns. Raises `TooLarge`.
    """
    best: tuple[tuple[Column, ...], list[Row]] | None = None
    end = time.monotonic() + _ORDERS_S
    orders = permutations(columns) if len(columns) <= 5 else _turned(columns)
    for order in orders:
        rows = _merged(_rows(pairs, order))
        if best is None or len(rows) < len(best[1]):
            best = order, rows
        if len(best[1]) <= 1 or time.monotonic() > end:
            break
    return best or ((), [])


def _turned(columns: Sequence[Column]) -> list[tuple[Column, ...]]:
    """Some orders: each column first, and each last."""
    found = [tuple(columns), tuple(reversed(columns))]
    for column in columns:
        others = [each for each in columns if each is not column]
        found += [(column, *others), (*others, column)]
    return found[:_MOST_ORDERS]


def _rows(pairs: Sequence[Pair], columns: Sequence[Column]) -> list[Row]:
    made, result = _Diagrams(), _Diagrams()
    states = tuple(
        (pair.rule, _built(made, pair.old, columns), _built(made, pair.new, columns), pair.same_answer)
        for pair in pairs
    )
    known: dict[tuple[tuple[str, int, int, bool], ...], int] = {}

    def differs(state: tuple[tuple[str, int, int, bool], ...]) -> int:
        state = tuple(each for each in state if each[1] != each[2] or not (each[3] or each[1] == 0))
        if not state:
            return 0
        if state not in known:
            level = min(made.nodes[node][0] for _, old, new, _ in state for node in (old, new))
            if level == _BELOW:
                known[state] = result.leaf(tuple((rule, bool(old), bool(new)) for rule, old, new, _ in state))
            else:
                known[state] = result.node(
                    level,
                    tuple(
                        differs(
                            tuple(
                                (
                                    rule,
                                    made.child(old, level, cell),
                                    made.child(new, level, cell),
                                    same,
                                )
                                for rule, old, new, same in state
                            )
                        )
                        for cell in range(len(columns[level].cells))
                    ),
                )
        return known[state]

    return _paths(result, differs(states), columns)


def _built(made: _Diagrams, firing: Firing | None, columns: Sequence[Column]) -> int:
    """The diagram of one rule."""
    if firing is None:
        return 0
    places = {field: place for place, field in enumerate(firing.uses)}
    tell: list[Callable[[Any], Hashable] | None] = [
        answers(firing.uses[column.field]) if column.field in places else None for column in columns
    ]
    tokens = [
        [each(cell.value) for cell in column.cells] if each is not None else []
        for each, column in zip(tell, columns, strict=True)
    ]
    known: dict[tuple[int, frozenset[tuple[Any, ...]]], int] = {}

    def built(level: int, left: frozenset[tuple[Any, ...]]) -> int:
        if not left:
            return 0
        while level < len(columns) and tell[level] is None:
            level += 1
        if level == len(columns):
            return 1
        if (level, left) not in known:
            place = places[columns[level].field]
            groups: dict[Hashable, set[tuple[Any, ...]]] = {}
            for hit in left:
                groups.setdefault(hit[place], set()).add(hit)
            below = {token: built(level + 1, frozenset(hits)) for token, hits in groups.items()}
            known[level, left] = made.node(level, tuple(below.get(token, 0) for token in tokens[level]))
        return known[level, left]

    return built(0, firing.hits)


def _paths(result: _Diagrams, root: int, columns: Sequence[Column]) -> list[Row]:
    everything = tuple(frozenset(range(len(column.cells))) for column in columns)
    found: list[Row] = []

    def walk(node: int, cells: tuple[frozenset[int], ...]) -> None:
        if not node:
            return
        if node in result.leaves:
            found.append(Row(cells, result.leaves[node]))
            if len(found) > MOST_NODES:
                raise TooLarge
            return
        level, children = result.nodes[node]
        by_child: dict[int, set[int]] = {}
        for cell, child in enumerate(children):
            by_child.setdefault(child, set()).add(cell)
        for child, own in by_child.items():
            walk(child, (*cells[:level], frozenset(own), *cells[level + 1 :]))

    walk(root, everything)
    return found


def _merged(rows: list[Row]) -> list[Row]:
    """Rows that differ in one column only become one, as often as there are such."""
    if len(rows) > 2000:
        return rows
    changed = True
    while changed:
        changed = False
        for column in range(len(rows[0].cells) if rows else 0):
            groups: dict[tuple[tuple[frozenset[int], ...], tuple[frozenset[int], ...], Leaf], set[int]] = {}
            for row in rows:
                key = (row.cells[:column], row.cells[column + 1 :], row.leaf)
                groups.setdefault(key, set()).update(row.cells[column])
            if len(groups) < len(rows):
                changed = True
                rows = [
                    Row((*before, frozenset(cells), *after), leaf) for (before, after, leaf), cells in groups.items()
                ]
    return rows
