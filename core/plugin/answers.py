"""What hooks may answer: anything else is the fault of the plugin, raised as `TypeError` or `ValueError`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..events.event import Event
from ..events.wire import Json

_MOST_FACTS = 64 << 10


def declared_facts(answer: Any) -> Mapping[str, Json]:
    """Of `krie_facts`: schemas by name."""
    if answer is not None and not isinstance(answer, Mapping):
        raise TypeError(f"krie_facts returned {answer!r}, not a mapping of names to JSON Schemas")
    return answer or {}


def added_facts(facts: Mapping[str, Json], declared: frozenset[str]) -> Mapping[str, Json]:
    """Of `krie_enrich`: all that was declared, or nothing, and not too much."""
    if facts and facts.keys() != declared:
        raise ValueError(f"krie_enrich added {sorted(facts)}, krie_facts declares {sorted(declared)}")
    left = _MOST_FACTS
    for name, value in facts.items():
        if (left := left - _weight(name, value)) < 0:
            raise ValueError(f"krie_enrich added more than {_MOST_FACTS >> 10} KiB of facts")
    return facts


def _weight(name: str, value: object) -> int:
    """About so many characters of JSON. Raises `TypeError` for what policies and the journal cannot hold."""
    if value is None or isinstance(value, bool):
        return 5
    if isinstance(value, str):
        return len(value.encode()) + 2
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return 20
    if isinstance(value, float) and math.isfinite(value):
        return 20
    if isinstance(value, list):
        return 2 + sum(_weight(name, each) for each in value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return 2 + sum(_weight(name, key) + _weight(name, each) for key, each in value.items())
    shown = "an integer of more than 64 bits" if isinstance(value, int) else repr(value)[:80]
    raise TypeError(f"krie_enrich added {name} with {shown}, which is not JSON")


def own_event(event: object, own: frozenset[type[Event]], hook: str) -> Event:
    """Only the plugin's own events: the agent knows no other type, and would stop at the first one."""
    if not isinstance(event, Event):
        raise TypeError(f"{hook} yielded {event!r}, which is not an Event")
    if type(event) not in own:
        raise TypeError(f"{hook} yielded {type(event).__name__}, which is not among the sensor's events")
    return event
