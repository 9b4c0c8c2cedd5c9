"""What `krie integrity` tells of system calls, interrupts and tables of functions, without a baseline or an image."""

import struct

import pytest
from krie import Check, Difference
from krie.plugins.syscall_table import passages
from krie.plugins.syscall_table.explained import Causes

from .untouched import MODULE, NOP, TEXT, Kernel

FOPS = TEXT + 0x500000
SWITCH = TEXT + 0x5000


@pytest.fixture(autouse=True)
def _alone(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "KALLSYMS", kernel.file)
    monkeypatch.setattr(passages, "SHIPPED", ("some_fops", "absent_fops"))
    monkeypatch.setattr(passages, "ranges", lambda: kernel.modules)
    monkeypatch.setattr("krie.plugins.syscall_table.derive.ranges", lambda: kernel.modules)


def looked(kernel: Kernel) -> dict[str, Check]:
    kernel.list_symbols()
    checks = list(passages.check(kernel, lambda _: None))
    return {each.name: each for each in checks}


def told(kernel: Kernel) -> list[tuple[str, ...]]:
    found = [each for check in looked(kernel).values() for each in check.differences]
    return [(each.place, each.was, each.now, each.leads_to) for each in found]


def test_an_untouched_kernel(kernel: Kernel) -> None:
    found = looked(kernel)
    assert [len(each.differences) for each in found.values()] == [0, 0, 0]
    assert {name: each.compared for name, each in found.items()} == {
        "system calls": 3 * 8 + 3 * 16 + 3 * 32,
        "interrupts": 4096,
        "tables of functions": 32,
    }
    assert all(each.reference and not each.needed for each in found.values())
    said = "; ".join(limit for each in found.values() for limit in each.not_looked_at)
    assert "ia32_sys_call_table, which this kernel does not tell" in said
    assert "does not tell: absent_fops" in said
    assert "which number leads to which jump" in said


def test_what_is_not_there_has_no_reference(kernel: Kernel) -> None:
    for name in ("idt_table", "some_fops"):
        del kernel.symbols[name]
    found = looked(kernel)
    assert [each.reference for each in found.values()][1:] == ["", ""]
    assert "does not tell: all of them" in found["tables of functions"].not_looked_at[0]


@pytest.mark.parametrize("listed", [True, False])
def test_a_slot_that_leads_to_a_module(kernel: Kernel, listed: bool) -> None:
    kernel.write(TEXT + 0x200008, struct.pack("=Q", MODULE + 0x20))
    if listed:
        kernel.modules = [range(MODULE, MODULE + 0x1000)]
        kernel.of_modules = f"{MODULE + 0x20:016x} t hook\t[evil]\n"
    (found,) = looked(kernel)["system calls"].differences
    assert found == Difference(
        TEXT + 0x200008,
        "sys_call_table[1], write",
        f"{kernel.handlers['write']:x}",
        f"{MODULE + 0x20:x}",
        "hook+0x0 [evil]" if listed else f"{MODULE + 0x20:#x}, which is nobody's",
    )


def test_a_slot_that_leads_to_another_handler_and_one_whose_handler_nobody_knows(kernel: Kernel) -> None:
    kernel.symbols["__x64_sys_no_such_call"] = kernel.symbols.pop("__x64_sys_open")
    kernel.write(TEXT + 0x200000, struct.pack("=QQQ", kernel.handlers["write"], kernel.handlers["write"], MODULE))
    kernel.modules = [range(MODULE, MODULE + 0x1000)]
    first, second = told(kernel)[:2]
    assert first == (
        "sys_call_table[0], read",
        f"{kernel.handlers['read']:x}",
        f"{kernel.handlers['write']:x}",
        "__x64_sys_write",
    )
    assert second[:3] == ("sys_call_table[2]", "", f"{MODULE:x}")


def test_a_jump_that_leads_to_a_module(kernel: Kernel) -> None:
    at = SWITCH + 21
    code = b"\xe9" + struct.pack("=i", MODULE - (at + 5))
    kernel.write(at, code)
    expected = ("x64_sys_call+0x15, number 1", "", code.hex(), f"{MODULE:#x}, which is nobody's")
    assert told(kernel) == [expected]


def test_a_jump_that_is_not_there(kernel: Kernel) -> None:
    kernel.write(SWITCH + 21, b"\x90" * 5)
    expected = ("x64_sys_call: nothing leads to __x64_sys_write", f"{kernel.handlers['write']:x}", "", "")
    assert told(kernel) == [expected]


def test_a_slot_that_is_not_there(kernel: Kernel) -> None:
    kernel.symbols["__x64_sys_no_such_call"] = kernel.symbols.pop("__x64_sys_open")
    kernel.write(TEXT + 0x200010, struct.pack("=Q", kernel.handlers["read"]))
    assert [each[0] for each in told(kernel)] == ["sys_call_table: nothing leads to __x64_sys_no_such_call"]


@pytest.mark.parametrize("cause", ["", "kprobe"])
def test_a_handler_that_begins_with_a_jump(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    for index in range(20):
        kernel.put(f"__x64_sys_{index}", TEXT + 0x9000 + 0x100 * index, NOP.ljust(64, b"\x90"))
    slots = (*kernel.handlers.values(), *(TEXT + 0x9000 + 0x100 * index for index in range(20)))
    kernel.put("sys_call_table", TEXT + 0x700000, struct.pack("=23Q", *slots))
    kernel.put("end", TEXT + 0x700000 + 23 * 8, bytes(8))
    del kernel.symbols["x64_sys_call"]
    handler = kernel.handlers["open"]
    kernel.write(handler, b"\xe9" + struct.pack("=i", MODULE - (handler + 5)))
    monkeypatch.setattr(Causes, "of", lambda *_: cause)
    check = looked(kernel)["system calls"]
    assert check.explained == ({cause: 1} if cause else {})
    assert [(each.place, each.leads_to) for each in check.differences] == (
        [] if cause else [("__x64_sys_open", f"{MODULE:#x}, which is nobody's")]
    )


def test_a_gate_and_a_pointer_that_lead_to_nobody(kernel: Kernel) -> None:
    to = MODULE + 0x30
    gate = struct.pack("=2Q", to & 0xFFFF | 1 << 47 | (to >> 16 & 0xFFFF) << 48, to >> 32)
    kernel.write(TEXT + 0x400000 + 16 * 9, gate)
    kernel.write(FOPS + 16, struct.pack("=Q", to))
    nobody = f"{to:#x}, which is nobody's"
    assert told(kernel) == [("idt_table[9]", "", f"{to:x}", nobody), ("some_fops+0x10", "", f"{to:x}", nobody)]
