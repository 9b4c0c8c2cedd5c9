"""Comparing the kernel's code again and again: what is told, when, and what is only on its way."""

import os
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie import KernelError, Symbols
from krie.plugins.syscall_table import areas
from krie.plugins.syscall_table.areas import areas_of, store, trapped, without_tracers
from krie.plugins.syscall_table.comparison import Area, CodeComparison
from krie.plugins.syscall_table.explain import Code, Lists
from krie.plugins.syscall_table.image import NOP5
from krie.plugins.syscall_table.reference import NoReferenceError
from krie.plugins.syscall_table.runs import Ranges

from .compared_code import CALLER, FUNCTION, LABEL, MODULE, NOTHING, PROBED, TABLES, TEXT, Memory


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    place = tmp_path / "kallsyms"
    place.write_text(f"{TEXT.start:016x} T first\n{FUNCTION:016x} T function\n{CALLER:016x} T ftrace_caller\n")
    return Symbols(place=place)


def no_bytes(_address: int, _size: int) -> bytes:
    return b""


def comparison(
    memory: Memory,
    symbols: Symbols,
    lists: Callable[[], Lists] = lambda: NOTHING,
    sleep: Callable[[float], None] = lambda _: None,
    traps: frozenset[int] = frozenset(),
) -> CodeComparison:
    content = bytes(memory.parts[TEXT])
    parts = [
        Area("text", TEXT.start, content, traps=set(traps)),
        Area("module", MODULE.start, bytes(memory.parts[MODULE]), near=True),
    ]
    code = Code(TEXT, no_bytes, no_bytes, symbols, TABLES, ())
    return CodeComparison(memory.kernel, parts, code, lists, lambda _: lists(), sleep)


def test_what_nothing_explains_is_found_with_what_it_was(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    assert compared.look() == []
    assert compared.compared == len(TEXT) + len(MODULE)
    memory.write(PROBED, b"\x41\x42\x43\x44")  # over the end of a page
    memory.write(LABEL, b"\xe9" + struct.pack("<i", 0x40 - 5))
    (wrong,) = compared.look()
    assert (wrong.section, wrong.address, wrong.was, wrong.now) == ("text", PROBED, b"\x90" * 4, b"\x41\x42\x43\x44")
    memory.write(PROBED, b"\x90" * 4)
    assert compared.look() == []


def test_parts_of_one_act_are_one_and_others_are_not(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    memory.write(FUNCTION, b"\x41\x90\x90\x42")
    memory.write(FUNCTION + 0x40, b"\x43")
    first, second = compared.look()
    assert (first.address, first.now, first.was) == (FUNCTION, b"\x41\x90\x90\x42", b"\x90" * 4)
    assert (second.address, second.now) == (FUNCTION + 0x40, b"\x43")


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_what_is_gone_or_another_at_the_next_look_is_not_told(memory: Memory, symbols: Symbols, turn: int) -> None:
    turns = iter(range(10))
    contents = iter((b"\x90", b"\x42"))

    def sleep(_seconds: float) -> None:
        if next(turns) == turn:
            memory.write(FUNCTION, next(contents))

    compared = comparison(memory, symbols, sleep=sleep)
    memory.write(FUNCTION, b"\x41")
    assert compared.look() == []


def test_what_the_kernel_lists_a_moment_later_is_explained(memory: Memory, symbols: Symbols) -> None:
    lists = deque([NOTHING, Lists(frozenset({FUNCTION}), frozenset())])

    def read() -> Lists:
        return lists.popleft() if len(lists) > 1 else lists[0]

    compared = comparison(memory, symbols, read)
    memory.write(FUNCTION, b"\xcc")
    assert compared.look() == []


def test_what_a_kprobe_covered_is_learnt_when_it_has_gone(memory: Memory, symbols: Symbols) -> None:
    memory.write(FUNCTION, b"\xcc")
    compared = comparison(memory, symbols, traps=frozenset({FUNCTION}))
    memory.write(FUNCTION, b"\x55")
    assert compared.look() == []
    memory.write(FUNCTION, b"\x56")
    (wrong,) = compared.look()
    assert (wrong.was, wrong.now) == (b"\x55", b"\x56")
    memory.write(FUNCTION + 1, b"\x57")  # beside it nothing is
    (wrong,) = compared.look()
    assert wrong.was == b"\x55\x90"


def test_a_module_may_go_meanwhile_and_the_kernel_may_not(memory: Memory, symbols: Symbols) -> None:
    compared = comparison(memory, symbols)
    del memory.parts[MODULE]
    memory.write(FUNCTION, b"\x41")
    assert len(compared.look()) == 1
    del memory.parts[TEXT]
    with pytest.raises(KernelError):
        compared.look()


def test_a_modules_jumps_may_become_nops_and_nothing_else(memory: Memory, symbols: Symbols) -> None:
    site = MODULE.start + 0x10
    inside = b"\xe9" + struct.pack("<i", 0x20)
    memory.write(site, NOP5 + b"\xeb\x10")
    compared = comparison(memory, symbols)
    for legal in (inside, b"\xe8" + struct.pack("<i", (FUNCTION - site - 5))):
        memory.write(site, legal)
        assert compared.look() == []
    memory.write(site + 5, b"\x66\x90")
    assert compared.look() == []
    memory.write(site + 5, b"\xeb\x12")  # another jump
    assert len(compared.look()) == 1
    memory.write(site + 5, b"\xeb\x10")
    memory.write(site, inside)
    again = comparison(memory, symbols)
    memory.write(site, b"\xe9" + struct.pack("<i", 0x30))
    assert len(again.look()) == 1
    for other in (b"\xe9" + struct.pack("<i", 0x2000), b"\xe8" + struct.pack("<i", 0x20), b"\x41" * 5):
        memory.write(site, other)
        assert len(compared.look()) == 1


def test_locks_come_with_a_second_processor(memory: Memory, symbols: Symbols) -> None:
    memory.write(FUNCTION, b"\x3e\x90\x90\x3e")
    compared = comparison(memory, symbols)
    compared._kernel = replace(compared._kernel, locks=Ranges([(FUNCTION, 1)]).end)
    memory.write(FUNCTION, b"\xf0")
    assert compared.look() == []
    memory.write(FUNCTION + 3, b"\xf0")
    assert [each.address for each in compared.look()] == [FUNCTION + 3]


def test_a_reference_of_what_is_there_is_without_tracers(memory: Memory, symbols: Symbols) -> None:
    call = b"\xe8" + struct.pack("<i", CALLER - FUNCTION - 5)
    memory.write(FUNCTION, call)
    memory.write(FUNCTION + 0x20, b"\xcc")
    memory.write(FUNCTION + 0x30, b"\xe9")
    content = bytearray(memory.parts[TEXT])
    code = Code(TEXT, no_bytes, no_bytes, symbols, TABLES, (NOTHING,))
    without_tracers(content, TEXT.start, [FUNCTION, FUNCTION + 0x20], code)
    place = FUNCTION - TEXT.start
    assert content[place : place + 5] == NOP5
    lists = Lists(frozenset({FUNCTION, FUNCTION + 0x20, FUNCTION + 0x30, MODULE.start}))
    whole = Ranges([(TEXT.start, len(TEXT))])
    expected = {FUNCTION + 0x20, *range(FUNCTION + 0x30, FUNCTION + 0x35)}
    assert trapped(content, TEXT.start, lists, whole) == expected
    assert trapped(content, TEXT.start, lists, Ranges([(FUNCTION + 0x20, 1)])) == {FUNCTION + 0x20}


def test_a_stored_reference_cannot_be_changed(
    memory: Memory, symbols: Symbols, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_release: str) -> Any:
        raise NoReferenceError("no image")

    monkeypatch.setattr(areas, "find", none)
    monkeypatch.setattr(areas, "_BETWEEN_S", 0)
    monkeypatch.setattr(areas, "read_lists", lambda _: NOTHING)
    memory.write(FUNCTION, b"\x41")
    known = {"_stext": TEXT.start, "_etext": TEXT.stop, "__start___jump_table": 1}
    made = store(file, memory.kernel, b"", symbols, lambda name: known.get(name, 0), "6")
    assert (made.reference, made.parts) == ("start", (("text", TEXT.start, len(TEXT), 0),))
    assert (made.unknown, made.why) == (("code before the agent's start", "read-only data"), "no image")
    ((text,), locks) = areas_of(made, file)
    assert text.before(FUNCTION - 1, 3) == b"\x90\x41\x90"
    assert list(locks) == []
    with pytest.raises(OSError, match="Operation not permitted"):
        os.pwrite(file, b"\x42", 0)
    without = store(file, memory.kernel, b"", symbols, lambda _: 0, "6")
    assert (without.reference, without.parts, without.unknown) == ("none", (), ("code",))
