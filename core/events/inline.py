"""Inline fields: what a program knows of an event before it sends the record, so that rules can be decided there."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import LayoutError
from .event import EventType
from .table_layout import FIELDS
from .wire import Boolean, Chars, Choice, Integer, WireType

NamePath = tuple[str, ...]
"""What a dotted name leads through, such as ("event", "name") below `input`."""
_NUMBER = Integer("I")
_SMALL = 256
PROCESS_FIELDS: dict[str, WireType | None] = {
    "uid": _NUMBER,
    "euid": _NUMBER,
    "gid": _NUMBER,
    "program": None,
    "kernel_thread": Boolean(),
    "container": Boolean(),
}
"""What is inline of `input.process` for every kind, in order of `krie_actor`. None: see `InlineField`."""


@dataclass(frozen=True, slots=True)
class InlineField:
    """One inline field of a kind."""

    path: NamePath
    """Below `input`: ("event", NAME) or ("process", NAME)."""
    index: int
    """Its number in the kind's table, and its bit in `krie_table.used`."""
    wire: WireType | None = field(compare=False)
    """How the kernel has it; None for `program`, which it has as a number by the executable's identity."""

    def __str__(self) -> str:
        """As policies write it."""
        return ".".join(("input", *self.path))


def inline_fields(event_type: EventType) -> dict[NamePath, InlineField]:
    """All inline fields of a kind: its own, then the process's. Raises `LayoutError` where they are too many."""
    own = [(("event", each.name), each.wire) for each in event_type.own_fields if each.inline]
    process = [(("process", name), wire) for name, wire in PROCESS_FIELDS.items()]
    if len(own) + len(process) > FIELDS:
        most = FIELDS - len(process)
        raise LayoutError(event_type.event.__name__, own[most][0][1], f"is one inline field too many; {most} can be")
    return {path: InlineField(path, index, wire) for index, (path, wire) in enumerate((*own, *process))}


def shape_of(wire: WireType | None) -> str:
    """How C handles it: `text`, `boolean`, `small` (a number that is an interval of its own) or `number`."""
    if wire is None:
        return "small"
    if isinstance(wire, Chars):
        return "text"
    if isinstance(wire, Boolean):
        return "boolean"
    return "small" if isinstance(wire, Choice) and max(wire.names, default=0) < _SMALL else "number"
