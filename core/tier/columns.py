"""One field of a table: its cells as the intervals between break points that the kernel searches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from ..events.inline import InlineField, shape_of
from ..events.table_layout import POINTS, ROWS, STEPS
from .domain import Cell, Coding

_ABOVE = 1 << 64


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a table."""

    field: InlineField
    coding: Coding
    cells: tuple[Cell, ...]
    stride: int
    """What the next cell adds to the number of the row."""

    def intervals(self) -> tuple[list[int], list[int]]:
        """Break points, and a step for each interval between them.

        Small numbers are intervals of their own, without break points: a step for each, and the last for all above.
        """
        return self._searched() if shape_of(self.field.wire) == "number" else ([], self._direct())

    def _direct(self) -> list[int]:
        if shape_of(self.field.wire) == "boolean":
            return [place * self.stride for place in range(len(self.cells))] if len(self.cells) > 1 else [0, 0]
        named = {
            number: place * self.stride
            for place, cell in enumerate(self.cells)
            for first, last in cell.ranges
            for number in range(first, last + 1)
        }
        return [named.get(number, 0) for number in range(max(named, default=-1) + 2)]

    def _searched(self) -> tuple[list[int], list[int]]:
        starts = {0: 0}
        ranges = sorted((first, last, place) for place, cell in enumerate(self.cells) for first, last in cell.ranges)
        for (first, last, place), follower in zip(ranges, [*ranges[1:], None], strict=True):
            starts[first] = place
            if follower is None or follower[0] > last + 1:
                starts[last + 1] = 0  # what no cell names belongs to the first
        points: list[int] = []
        steps: list[int] = []
        for start, place in sorted(starts.items()):
            if start >= _ABOVE or (steps and steps[-1] == place * self.stride):
                continue
            points += [start] if steps else []
            steps.append(place * self.stride)
        return points, steps


def too_big(columns: Iterable[Column]) -> str:
    """What of the columns a table in the kernel has no place for; empty where they fit."""
    columns = tuple(columns)
    if (rows := prod(len(each.cells) for each in columns)) > ROWS:
        return f"{rows} of {ROWS} rows"
    intervals = [each.intervals() for each in columns]
    if (points := sum(len(each) for each, _ in intervals)) >= POINTS:
        return f"{points} of {POINTS - 1} break points, which are where its constants end"
    if (steps := sum(len(each) for _, each in intervals)) > STEPS:
        return f"{steps} of {STEPS} intervals between its constants"
    return ""
