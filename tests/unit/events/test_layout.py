"""Layouts: one declaration for C, Python and JSON."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from krie import (
    S64,
    U8,
    U16,
    U32,
    U64,
    Bitmap,
    Bool,
    Bytes,
    Chars,
    Choice,
    Comm,
    Doc,
    Event,
    FlagSet,
    Hex64,
    Pad1,
    Pad4,
    Pad5,
)
from krie.errors import DecodeError, LayoutError
from krie.events.agent import AGENT_EVENTS
from krie.events.event import EventType, EventTypes
from krie.events.layout import Layout
from krie.events.wire import Boolean, Integer, WireType, text_of
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.testing.events import build, encode

ALL = (*AGENT_EVENTS, BpfCall, Ptrace, SysctlWrite, ProcessExec, ProcessExit, ProcessFork)


@dataclass(frozen=True, slots=True)
class Everything(Event):
    """One field of each wire type."""

    KIND = 0x8001
    NAME = "example.everything"

    address: Annotated[Hex64, Doc("an address")]
    delta: S64
    number: U32
    flags: Annotated[tuple[str, ...], FlagSet("I", {1: "read", 2: "write"})]
    port: U16
    small: U8
    yes: Bool
    choice: Annotated[str, Choice("H", {0: "none", 7: "some"})]
    raw: Annotated[bytes, Bytes(6)]
    called: Annotated[tuple[str, ...], Bitmap(2, ("zero", "one", "two"))]
    path: Annotated[str, Chars(13)]
    pad: Pad5 = b""


def _values(wire: WireType) -> st.SearchStrategy[Any]:
    if isinstance(wire, Integer):
        low, high = wire.schema().get("minimum", 0), wire.schema().get("maximum", (1 << 64) - 1)
        return st.integers(low, high)  # type: ignore[arg-type]
    if isinstance(wire, Boolean):
        return st.booleans()
    if isinstance(wire, Chars):
        # What a kernel's buffer can hold: any bytes, shown as text_of shows them.
        return st.binary(max_size=wire.count).map(text_of).filter(lambda text: len(text.encode()) <= wire.count)
    if isinstance(wire, Choice):
        return st.sampled_from([*wire.names.values(), "other"])
    if isinstance(wire, FlagSet):
        return st.sets(st.sampled_from(sorted(wire.names.values()))).map(lambda names: tuple(sorted(names)))
    if isinstance(wire, Bitmap):
        numbers = st.sets(st.integers(0, 8 * wire.count - 1)).map(sorted)
        return numbers.map(lambda found: tuple(dict(enumerate(wire.names)).get(each, str(each)) for each in found))
    assert isinstance(wire, Bytes)
    return st.binary(min_size=wire.count, max_size=wire.count)


@st.composite
def events(draw: st.DrawFn) -> Event:
    candidates: tuple[type[Event], ...] = (*ALL, Everything)
    event = draw(st.sampled_from(candidates))
    layout = EventType(event).layout
    fields = {each.name: draw(_values(each.wire)) for each in layout.data_fields}
    return build(event, **{**fields, "kind": event.KIND, "version": event.VERSION, "size": layout.size})


TYPES = EventTypes((*ALL, Everything))


@given(events())
def test_decoding_undoes_encoding(event: Event) -> None:
    assert TYPES.decode(encode(event)) == event


@given(events())
def test_json_obeys_the_schema(event: Event) -> None:
    event_type = TYPES[event.kind]
    document = json.loads(json.dumps({"kind": event_type.name, **event_type.json(event)}))
    jsonschema.validate(document, event_type.schema())


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        TYPES.decode(raw)


@given(events(), st.integers(0, 2000), st.integers(1, 255))
def test_a_changed_byte_is_an_event_or_refused(event: Event, position: int, change: int) -> None:
    raw = bytearray(encode(event))
    raw[position % len(raw)] ^= change
    try:
        TYPES.decode(bytes(raw))
    except DecodeError as error:
        assert position % len(raw) < 8, error  # only kind, version and size can make a record undecodable


@given(events(), st.integers(1, 100))
def test_a_record_of_another_size_is_refused(event: Event, cut: int) -> None:
    raw = encode(event)
    for wrong in (raw[:-cut], raw + bytes(cut)):
        with pytest.raises(DecodeError):
            TYPES.decode(wrong)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_text_is_injective(one: bytes, other: bytes) -> None:
    same = one.partition(b"\0")[0] == other.partition(b"\0")[0]
    assert (text_of(one) == text_of(other)) is same


def test_numbers_without_a_name_are_told_apart_from_known_ones() -> None:
    raw = bytearray(encode(build(Everything)))
    fields = {each.name: each.offset for each in TYPES[Everything.KIND].layout.fields}
    raw[fields["choice"]] = 9
    raw[fields["flags"]] = 2 | 64
    event = TYPES.decode(bytes(raw))
    assert isinstance(event, Everything)
    assert event.choice == "other"
    assert event.flags == ("write", "unknown_bits")


def test_c_structs_have_the_offsets_that_python_has(tmp_path: Path) -> None:
    prologue = "typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;\n"
    prologue += "typedef unsigned long long __u64; typedef int __s32; typedef long long __s64;\n"
    prologue += Layout(Event).c_struct("krie_header")
    source = tmp_path / "structs.c"
    source.write_text(prologue + "".join(EventType(each).c_declaration() for each in (*ALL, Everything)))
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", source], check=True)


def test_a_moved_field_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "moved.c"
    text = Layout(Event).c_struct("krie_header").replace("__u64 time;", "__u64 time; __u64 stranger;")
    source.write_text(
        "typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;\n" + text
    )
    result = subprocess.run(["gcc", "-fsyntax-only", source], capture_output=True, text=True)
    assert "krie_header.start_time moved" in result.stderr


def _declared(**annotations: object) -> type[Any]:
    namespace = {"__annotations__": annotations, "__module__": __name__}
    return dataclass(frozen=True)(type("Broken", (), namespace))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            {"a": U8, "b": U32},
            "Broken.b: is not aligned to 4 bytes; move it before a: order the fields by size, the largest first",
        ),
        ({"a": U32}, 'Broken.a: the record has 4 bytes, which is not a multiple of 8; add `pad: Pad4 = b""` behind it'),
        ({"a": U32, "p": Pad1}, "Broken.p: the record has 5 bytes, which is not a multiple of 8; make it Pad4"),
        ({"a": U64, "p": Pad5}, "Broken.p: the record has 13 bytes, which is not a multiple of 8; remove it"),
        ({"a": int}, "Broken.a: <class 'int'> is not a wire type; use one of krie's, such as U32 or Bool"),
        ({"a": Pad4, "b": U32}, "Broken.a: padding must come last; order the fields by size, the largest first"),
        ({"a": Annotated[int, Doc("no type")]}, "is not a wire type"),
        ({"short": U64}, "Broken.short: is a word of C; give the field another name"),
    ],
)
def test_surprising_layouts_are_refused_by_name(annotations: dict[str, object], message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Layout(_declared(**annotations))
    assert message in str(caught.value)


def test_only_fields_of_its_own_are_named_to_be_moved() -> None:
    namespace = {"__annotations__": {"a": U8, "b": U32}, "__module__": __name__, "KIND": 0x8001, "NAME": "a.b"}
    with pytest.raises(LayoutError, match="Twin.b: is not aligned to 4 bytes; move it before a: order the fields"):
        Layout(dataclass(frozen=True)(type("Twin", (Event,), namespace)))


def _event(name: str, kind: int, tag: str = "Twin") -> type[Event]:
    namespace = {"__annotations__": {"a": U64}, "__module__": __name__, "KIND": kind, "NAME": name}
    return dataclass(frozen=True)(type(tag, (Event,), namespace))


@pytest.mark.parametrize(
    ("twins", "message"),
    [
        ((_event("a.b", 0x8001, "One"), _event("a.c", 0x8001, "Two")), "Two.KIND: 0x8001 is taken by One (a.b)"),
        ((_event("a.b", 0x8001, "One"), _event("a.b", 0x8002, "Two")), "Two.NAME: 'a.b' is taken by One"),
        ((_event("A.b", 0x8001),), "Twin.NAME: 'A.b' is not of the form plugin.event in lower case"),
        ((_event("a.b", 0),), "Twin.KIND: 0 is not between 1 and 65535"),
    ],
)
def test_kinds_and_names_are_unique(twins: tuple[type[Event], ...], message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        EventTypes(twins)
    assert str(caught.value) == message


def test_comm_and_padding_sizes() -> None:
    layout = Layout(_declared(a=U64, name=Comm, b=U32, c=U16, d=U8, pad=Pad1))
    assert layout.size == 32
    assert [each.name for each in layout.data_fields] == ["a", "name", "b", "c", "d"]


def test_names_of_numbers_are_constants_in_c() -> None:
    declared = EventType(Everything).c_declaration()
    name = EventType(Everything).c_name.upper()
    for each in ("CHOICE_", "FLAGS_"):
        assert f"#define {name}_{each}" in declared
    assert f"#define {name}_FLAGS_WRITE 0x2\n" in declared
