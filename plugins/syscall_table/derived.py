"""What a derivation gives: all places of a kernel that system calls go through."""

from __future__ import annotations

from dataclasses import dataclass, field

from .pieces import Piece


@dataclass(frozen=True, slots=True)
class Missing:
    """A handler that the table has and the function that dispatches does not: its jump was replaced, or removed."""

    abi: int
    number: int
    handler: int
    function: int
    """Where the function begins that lacks it."""


@dataclass(slots=True)
class Derived:
    """All places of this kernel."""

    pieces: list[Piece] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """What this kernel does not tell, and is not looked at."""
    names: dict[int, str] = field(default_factory=dict)
    """Handlers by address."""
    dispatchers: list[range] = field(default_factory=list)
    """Code that may call handlers."""
    text: range = range(0)
