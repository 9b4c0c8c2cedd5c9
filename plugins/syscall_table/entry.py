"""A function that the kernel calls because somebody has entered it in one of its lists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A function in a list."""

    list: str
    address: int
    """Of the pointer to it."""
    function: int
