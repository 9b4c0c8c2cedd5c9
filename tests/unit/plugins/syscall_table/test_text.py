"""`krie integrity`: what one full look at the kernel's code tells, and what it leaves out."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from krie import Check, Difference, KernelMemory, Symbols
from krie.plugins.syscall_table import text
from krie.plugins.syscall_table.explain import Lists
from krie.plugins.syscall_table.reference import NoReferenceError, Part, Reference
from krie.plugins.syscall_table.runs import Ranges

from .compared_code import FUNCTION, MODULE, NOTHING, TEXT

IMAGE = Path("/boot/vmlinuz")
KALLSYMS = f"{TEXT.start:016x} T _stext\n{FUNCTION:016x} T function\n{MODULE.start + 0x10:016x} t hook\t[evil]\n"
CODE = Part("text", TEXT.start, b"\x90" * len(TEXT))
DATA = Part("rodata", TEXT.stop, bytes(0x1000))
PLACE = FUNCTION + 0x10
BOOT = range(FUNCTION + 0x400, FUNCTION + 0x410)


def written(part: Part, *changes: tuple[int, bytes]) -> bytes:
    """A part with other bytes at these addresses."""
    made = bytearray(part.content)
    for address, content in changes:
        made[address - part.start : address - part.start + len(content)] = content
    return bytes(made)


class Kernel:
    """Holds in turn what each look finds, and then what the last one found."""

    def __init__(self) -> None:
        self.code: list[bytes] = [CODE.content]
        self.data = DATA.content
        self.looks = 0

    def read(self, address: int, size: int) -> bytes:
        if address == DATA.start:
            return self.data[:size]
        assert (address, size) == (CODE.start, len(CODE.content))
        self.looks += 1
        return self.code[min(self.looks, len(self.code)) - 1]


Look = Callable[[], Sequence[Check]]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def look(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    place = tmp_path / "kallsyms"
    place.write_text(KALLSYMS)
    reference = Reference(IMAGE, (CODE, DATA), Ranges([(BOOT.start, len(BOOT))]), Ranges([]))
    monkeypatch.setattr(text, "kallsyms_text", lambda _: place.read_bytes())
    monkeypatch.setattr(text, "Symbols", lambda: Symbols(place=place))
    monkeypatch.setattr(text, "find", lambda _: (IMAGE, None))
    monkeypatch.setattr(text, "prepare", lambda *_: reference)
    monkeypatch.setattr(text, "read_lists", lambda _: NOTHING)
    monkeypatch.setattr(text, "_BETWEEN_S", 0)
    return lambda: list(text.check(cast("KernelMemory", kernel), lambda _: None))


def test_nothing_is_told_when_all_is_as_it_was(kernel: Kernel, look: Look) -> None:
    for check, part in zip(look(), (CODE, DATA), strict=True):
        assert (check.name, check.compared, check.reference) == (part.section, len(part.content), f"image {IMAGE}")
        assert (check.differences, check.others, check.explained) == ((), 0, {})
    assert kernel.looks == 1


def test_a_byte_that_differs_is_told_with_its_place_and_what_it_was(kernel: Kernel, look: Look) -> None:
    kernel.code = [written(CODE, (PLACE, b"\x91"))]
    kernel.data = written(DATA, (DATA.start + 8, b"\x07"))
    code, data = look()
    assert code.differences == (Difference(PLACE, "function+0x10", "90", "91"),)
    assert code.explained == {}
    assert [(each.address, each.was, each.now) for each in data.differences] == [(DATA.start + 8, "00", "07")]
    assert kernel.looks == 3


def test_where_a_jump_leads_is_told(kernel: Kernel, look: Look) -> None:
    jump = b"\xe9" + struct.pack("<i", MODULE.start + 0x10 - PLACE - 5)
    kernel.code = [written(CODE, (PLACE, jump))]
    (found,) = look()[0].differences
    assert (found.now, found.leads_to) == (jump.hex(), "hook+0x0 [evil]")


@pytest.mark.parametrize("later", [[b"\x90"], [b"\x91", b"\x90"], [b"\x92"], [b"\x91", b"\x92"]])
def test_what_changes_between_looks_is_not_told(kernel: Kernel, look: Look, later: list[bytes]) -> None:
    """The kernel patches its own code in steps."""
    kernel.code = [written(CODE, (PLACE, byte)) for byte in (b"\x91", *later)]
    assert look()[0].differences == ()
    kernel.code, kernel.looks = [written(CODE, (PLACE, b"\x91"), (FUNCTION, byte)) for byte in (b"\x91", *later)], 0
    assert [each.address for each in look()[0].differences] == [PLACE]


def test_what_has_a_legal_cause_is_counted(kernel: Kernel, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "read_lists", lambda _: Lists(frozenset({PLACE}), frozenset()))
    kernel.code = [written(CODE, (PLACE, b"\xcc"), (PLACE + 0x20, b"\xcc"), (BOOT.start, b"\x41" * len(BOOT)))]
    code, _ = look()
    assert code.explained == {"kprobe": 1, "boot": 1}
    assert [each.address for each in code.differences] == [PLACE + 0x20]


def test_of_many_differences_some_are_told_and_all_counted(kernel: Kernel, look: Look) -> None:
    kernel.code = [written(CODE, *((TEXT.start + 4 * each, b"\x91") for each in range(70)))]
    code, _ = look()
    assert (len(code.differences), code.others) == (64, 6)


def test_what_cannot_be_looked_at_is_said(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    said = " ".join(look()[0].not_looked_at)
    assert "jump labels" in said
    assert "the list of kprobes" not in said
    monkeypatch.setattr(text, "read_lists", lambda _: Lists(None, None))
    said = " ".join(look()[0].not_looked_at)
    assert "the list of kprobes" in said
    assert "the list of functions that ftrace handles" in said

    def nothing(_: str) -> None:
        raise NoReferenceError("no boot image is at /boot")

    monkeypatch.setattr(text, "find", nothing)
    (check,) = look()
    assert (check.compared, check.reference) == (0, "")
    assert "no boot image is at /boot" in check.not_looked_at[0]
    assert check.needed
