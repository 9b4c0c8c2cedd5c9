"""`krie integrity` where no agent runs: silent on a sound machine, and told what was there before anybody looked."""

import os
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.module import TestModule, address_of

from .diversions import MODULE, RARE, SLOT, number_of
from .integrity_command import looked

PARTS = {"system calls", "interrupts", "tables of functions", "lists of functions", "registers", "text", "modules"}
GATE = 15
"""A vector that no processor uses."""


@pytest.mark.needs("guest")
def test_a_sound_machine_without_the_image(alone: None) -> None:
    """The code is not compared, and all else is."""
    if any(Path(each.format(os.uname().release)).exists() for each in ("/boot/vmlinuz-{}", "/lib/modules/{}/vmlinuz")):
        pytest.skip("the image is there")
    look = looked()
    assert list(look.differences()) == []
    assert {each["name"] for each in look.report["checks"]} == PARTS
    assert {each["name"] for each in look.report["checks"] if not each["reference"]} == {"text"}
    assert look.check("system calls")["compared"] > 10_000
    assert look.check("tables of functions")["compared"] > 2_000
    assert look.check("lists of functions")["compared"] > 500
    assert look.check("modules")["compared"] > 100_000
    assert (look.exit_code, look.report["intact"], look.report["full"]) == (5, True, False)


@pytest.mark.needs("guest")
def test_a_sound_machine_with_the_image(alone: None, boot_image: Path) -> None:
    look = looked()
    assert list(look.differences()) == []
    assert look.check("text")["compared"] > 10_000_000
    assert (look.exit_code, look.report["intact"], look.report["full"]) == (0, True, True)


@pytest.mark.needs("test_module", "guest")
@pytest.mark.parametrize("hides", [pytest.param(False, marks=pytest.mark.long), True])
def test_what_a_module_has_taken_before(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], hides: bool
) -> None:
    """A slot, a pointer of constant data, a gate, and, of one that hides, a function in a list."""
    try:
        slot = address_of("sys_call_table") + SLOT * number_of(RARE)
        gate = address_of("idt_table") + 16 * GATE
    except KeyError:
        lacks("sys_call_table: its address is not told")
    pointer = address_of("udp_seq_ops") + 2 * SLOT
    to = address_of("krie_test_wrapper")
    leading = struct.pack("=2Q", to & 0xFFFF | 0x8E << 40 | (to >> 16 & 0xFFFF) << 48 | 0x10 << 16, to >> 32)
    with ExitStack() as stack:
        for address, content in ((slot, struct.pack("=Q", to)), (pointer, struct.pack("=Q", to)), (gate, leading)):
            stack.enter_context(test_module.effect("write", address, content.hex()))
        stack.enter_context(test_module.effect("notify"))
        if hides:
            stack.enter_context(test_module.effect("hide list"))
        look = looked()
    found = {(name, each["place"]): each for name, each in look.differences() if name != "text"}
    assert found.keys() == {
        ("system calls", f"sys_call_table[{number_of(RARE)}], {RARE}"),
        ("interrupts", f"idt_table[{GATE}]"),
        ("tables of functions", "udp_seq_ops+0x10"),
        *([("lists of functions", "module_notify_list")] if hides else []),
    }
    for (name, _), each in found.items():
        if name != "lists of functions":
            assert each["leads_to"] == (f"{to:#x}, which is nobody's" if hides else f"krie_test_wrapper+0x0 [{MODULE}]")
    assert look.check("lists of functions")["explained"].get(f"module {MODULE}", 0) == (0 if hides else 1)
    assert look.exit_code == 9
    assert list(looked().differences()) == []
