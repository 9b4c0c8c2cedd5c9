"""Builds events of any type, for tests of rules and plugins: every field has a plain value unless it is given."""

from __future__ import annotations

from typing import Any, TypeVar

from ..events.event import Event, EventType
from ..events.wire import Bitmap, Boolean, Bytes, Chars, Choice, FlagSet

_E = TypeVar("_E", bound=Event)


def build(event: type[_E], **fields: Any) -> _E:
    """An event of process 4242, which user 1000 runs; numbers are 0, texts empty, choices the first name."""
    event_type = EventType(event)
    values: dict[str, Any] = {}
    for each in event_type.layout.data_fields:
        wire = each.wire
        if isinstance(wire, Chars):
            values[each.name] = ""
        elif isinstance(wire, Choice):
            values[each.name] = next(iter(wire.names.values()))
        elif isinstance(wire, Bitmap | FlagSet):
            values[each.name] = ()
        elif isinstance(wire, Bytes):
            values[each.name] = bytes(wire.count)
        else:
            values[each.name] = False if isinstance(wire, Boolean) else 0
    header = {"kind": event.KIND, "version": event.VERSION, "size": event_type.layout.size, "comm": "test"}
    process = {"tgid": 4242, "tid": 4242, "start_time": 10**12, "parent_tgid": 1, "parent_start_time": 10**7}
    users = {"uid": 1000, "euid": 1000, "gid": 1000}
    return event(**{**values, **header, **process, **users, **fields})


def encode(event: Event) -> bytes:
    """The bytes that the kernel would have sent."""
    return EventType(type(event)).layout.encode(event)
