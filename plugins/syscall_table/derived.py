"""What a derivation gives: all places of a kernel that system calls go through."""

from __future__ import annotations

from dataclasses import dataclass, field

from .events import DISPATCH
from .pieces import Piece


@dataclass(frozen=True, slots=True)
class Missing:
    """A handler that either the table or the function that dispatches has, and the other one has not: its jump was
    replaced, or removed; or its slot leads to another handler."""

    abi: int
    number: int
    """-1: not known."""
    handler: int
    start: int
    """Where the function, or the table, begins that lacks it."""
    where: int = DISPATCH
    """A key of `events.WHERE`."""


@dataclass(slots=True)
class Derived:
    """All places of this kernel."""

    pieces: list[Piece] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """What this kernel does not tell, and is not looked at."""
    names: dict[int, str] = field(default_factory=dict)
    """Handlers by address."""
    slots: dict[int, int] = field(default_factory=dict)
    """By their addresses, to where those slots of the tables lead that are wrong."""
    dispatchers: list[range] = field(default_factory=list)
    """Code that may call handlers."""
    text: range = range(0)
