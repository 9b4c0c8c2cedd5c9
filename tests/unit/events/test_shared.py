"""Structs and constants that C and Python share: one declaration, and both sides agree on it."""

import re
import subprocess
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from krie import U8, U16, U32, U64, Array, Doc, Memory, Nested, Pad3, PluginError, Sensor, Shared, constants
from krie.bpf import __file__ as bpf
from krie.enforce.guard_sensor import enforcing_sensors
from krie.errors import DecodeError, LayoutError
from krie.events import core_maps
from krie.events.shared import declarations
from krie.plugin.contract import check_sensor

TYPES = """typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;
typedef unsigned long long __u64; typedef short __s16;
"""


@dataclass(frozen=True, slots=True)
class Inner(Shared):
    C_NAME: ClassVar[str] = "sample_inner"
    a: U64
    b: Annotated[U32, Doc("of something")]
    c: U32 = 7


@dataclass(frozen=True, slots=True)
class Outer(Shared):
    C_NAME: ClassVar[str] = "sample_outer"
    inner: Annotated[Inner, Nested(Inner)]
    words: Annotated[tuple[int, ...], Array("Q", 3)]
    shorts: Annotated[tuple[int, ...], Array("h", 4)]
    memory: Annotated[bytes, Memory(2)]
    last: U64


@dataclass(frozen=True, slots=True)
class Small(Shared):
    C_NAME: ClassVar[str] = "sample_small"
    a: U32
    b: U8
    pad: Pad3 = b""


@dataclass(frozen=True, slots=True)
class Many(Shared):
    C_NAME: ClassVar[str] = "sample_many"
    inner: Annotated[tuple[Inner, ...], Nested(Inner, 3)]
    last: U64


OUTER = Outer(Inner(1, 2), (3, 4, 5), (-1, 2), bytes(range(16)), 9)
MANY = Many((Inner(1, 2), Inner(3, 4)), 9)


def compiled(text: str, folder: Path) -> bytes:
    """What a program writes that was compiled from this."""
    (folder / "a.c").write_text(text)
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", folder / "a", folder / "a.c"], check=True)
    return subprocess.run([folder / "a"], check=True, capture_output=True).stdout


def test_a_compiler_lays_them_out_as_they_are_encoded(tmp_path: Path) -> None:
    text = f"""#include <stdio.h>
{TYPES}{declarations((Inner, Outer, Small, Many))}
int main(void) {{
    struct sample_outer outer = {{
        .inner = {{ .a = 1, .b = 2, .c = 7 }}, .words = {{ 3, 4, 5 }}, .shorts = {{ -1, 2 }},
        .memory = {{ 0x0706050403020100, 0x0f0e0d0c0b0a0908 }}, .last = 9,
    }};
    struct sample_small small = {{ .a = 1, .b = 2 }};
    struct sample_many many = {{ .inner = {{ {{ 1, 2, 7 }}, {{ 3, 4, 7 }} }}, .last = 9 }};
    fwrite(&outer, sizeof(outer), 1, stdout);
    fwrite(&small, sizeof(small), 1, stdout);
    fwrite(&many, sizeof(many), 1, stdout);
    return 0;
}}"""
    assert compiled(text, tmp_path) == OUTER.encode() + Small(1, 2).encode() + MANY.encode()


def test_structs_that_are_left_out_of_an_array_are_zeros() -> None:
    assert Many.decode(MANY.encode()) == Many((Inner(1, 2), Inner(3, 4), Inner(0, 0, 0)), 9)


def test_it_reads_back_what_it_wrote() -> None:
    assert Outer.decode(OUTER.encode()) == replace(OUTER, shorts=(-1, 2, 0, 0))
    assert Small.decode(Small(1, 2).encode()) == Small(1, 2)
    assert Small.decode(None) == Small(0, 0)
    assert (Small.size(), Outer.size()) == (8, 72)


def test_values_of_all_processors() -> None:
    each = [Inner(1, 2, 3), Inner(10, 20, 30)]
    raw = b"".join(one.encode() for one in each)
    assert list(Inner.each(raw)) == each
    assert Inner.total(raw) == Inner(11, 22, 33)


@pytest.mark.parametrize("raw", [b"", bytes(7), bytes(9)])
def test_bytes_of_another_size_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="Small has 8 bytes"):
        Small.decode(raw)


def test_padding_that_a_compiler_would_insert_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Padded(Shared):
        C_NAME: ClassVar[str] = "sample_padded"
        a: U32
        b: U16

    with pytest.raises(LayoutError, match=r"6 bytes, which is not a multiple of 4; add `pad: Pad2"):
        Padded.layout()


def test_constants_carry_the_names_of_the_members() -> None:
    class Number(IntEnum):
        ONE = 1
        TWO = 2

    class Bits(IntFlag):
        LOW = 1
        HIGH = 0x80

    assert constants("SAMPLE", Number) == {"SAMPLE_ONE": 1, "SAMPLE_TWO": 2}
    assert constants("SAMPLE_BIT", Bits) == {"SAMPLE_BIT_LOW": 1, "SAMPLE_BIT_HIGH": 0x80}


def test_no_two_of_the_core_have_one_name_in_c() -> None:
    names = [each.C_NAME for each in core_maps.STRUCTS]
    assert sorted(set(names)) == sorted(names)
    assert all(each.startswith("krie_") for each in names)
    assert all(each.startswith("KRIE_") for each in core_maps.CONSTANTS)


def test_what_c_and_python_agree_on_is_declared_once() -> None:
    assert {"KRIE_SECRET_ARGUMENT", "KRIE_SELF", "KRIE_SECRET", "KRIE_FROZEN"} <= core_maps.CONSTANTS.keys()
    assert "krie_peeked" in {each.C_NAME for each in core_maps.STRUCTS}
    source = "".join(each.read_text() for each in Path(bpf).parent.iterdir() if each.name.endswith((".h", ".c")))
    defined = set(re.findall(r"#define (\w+)", source)) | set(re.findall(r"^struct (\w+) \{", source, re.MULTILINE))
    sensors = [name for each in enforcing_sensors() for name in each.defines]
    assert "GUARD_SILENT_NS" in sensors
    assert not defined & {*core_maps.CONSTANTS, *sensors, *(each.C_NAME for each in core_maps.STRUCTS)}


def test_the_core_is_laid_out_as_a_compiler_does(tmp_path: Path) -> None:
    text = f"{TYPES}{declarations(core_maps.STRUCTS)}int main(void) {{ return 0; }}"
    assert compiled(text, tmp_path) == b""


def test_a_struct_of_a_plugin_has_its_prefix() -> None:
    check_sensor(EntryPoint("sample", "a:b", "krie"), Sensor("sample", "1", shared=(Inner, Outer)))
    with pytest.raises(PluginError, match="struct sample_inner of Inner must be named other_<something>"):
        check_sensor(EntryPoint("other", "a:b", "krie"), Sensor("other", "1", shared=(Inner,)))
