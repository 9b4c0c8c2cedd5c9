"""Rows of a benchmark as text."""

from __future__ import annotations

from collections.abc import Sequence

_HEADER = ("what", "figure", "and")


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Whole lines, however narrow the terminal is: who reads a file or a pipe, too, is to see all figures."""
    table = [_HEADER, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADER) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in table
    )
