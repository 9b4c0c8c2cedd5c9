"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable

Row = Iterable[str]


def table(columns: Row, rows: Iterable[Row]) -> str:
    """A table; a `|` in a cell stays one character of it."""
    head = tuple(columns)
    lines = [head, ("---",) * len(head), *map(tuple, rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def codes(names: Iterable[str]) -> str:
    """Names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def first_paragraph(doc: str | None) -> str:
    """Of a docstring, in one line."""
    return " ".join((doc or "").split("\n\n")[0].split())
