"""What an event class may not declare: it would break others' records, or the agent at the first event."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from krie import U32, U64, Event
from krie.errors import LayoutError
from krie.events.event import HEADER_FIELDS, EventType, EventTypes
from krie.testing.events import build, encode


def declared(processes: Mapping[str, tuple[str, str]] | None = None, **fields: Any) -> type[Event]:
    namespace = {
        "__annotations__": fields,
        "__module__": __name__,
        "KIND": 0x9001,
        "NAME": "example.broken",
        "PROCESSES": processes or {},
    }
    return dataclass(frozen=True)(type("Broken", (Event,), namespace))


@pytest.mark.parametrize("name", HEADER_FIELDS)
def test_a_field_of_the_header_cannot_be_declared_again(name: str) -> None:
    with pytest.raises(LayoutError) as caught:
        EventType(declared(None, **{name: U64}))
    assert str(caught.value) == f"Broken.{name}: is a field of every event's header; give it another name"


@pytest.mark.parametrize(
    ("processes", "problem"),
    [
        ({"target": ("a_tgid", "a_start")}, "'target' names 'a_start', which is not a field"),
        ({"number": ("tgid", "number")}, "'number' is a field already; give the process another name"),
    ],
)
def test_other_processes_are_named_by_fields(processes: Mapping[str, tuple[str, str]], problem: str) -> None:
    with pytest.raises(LayoutError) as caught:
        EventType(declared(processes, number=U64, a_tgid=U64))
    assert str(caught.value) == f"Broken.PROCESSES: {problem}"


def test_what_is_compared_of_other_processes_are_such() -> None:
    event = declared({"target": ("a_tgid", "a_start")}, a_tgid=U64, a_start=U64)
    event.ALIKE = ("target", "father")
    with pytest.raises(LayoutError) as caught:
        EventType(event)
    assert str(caught.value) == "Broken.ALIKE: 'father' is none of PROCESSES"


def test_other_processes_may_be_named_by_fields_of_the_header() -> None:
    EventType(declared({"father": ("parent_tgid", "parent_start_time")}, number=U64))


def test_a_field_may_hold_part_of_a_header_fields_name() -> None:
    """`offsetof` of the header's fields is rewritten in the C struct; fields with similar names must not be."""
    text = EventType(declared(tgid_of=U32, start=U32)).c_declaration()
    assert "offsetof(struct example_broken, tgid_of)" in text
    assert "offsetof(struct example_broken, start)" in text
    assert "offsetof(struct example_broken, header.tgid)" in text


def test_types_are_listed_by_kind_and_found_by_name() -> None:
    low, high = declared(number=U64), declared(number=U64)
    low.KIND, low.NAME = 0x8001, "example.low"
    types = EventTypes((high, low))
    assert [each.kind for each in types] == [0x8001, 0x9001]
    assert types.named("example.low") is types[0x8001]
    event = build(low, number=7)
    assert types.decode(encode(event)) == event
