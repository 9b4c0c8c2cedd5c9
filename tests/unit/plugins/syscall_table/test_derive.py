"""Places that system calls pass, derived of memory and symbols: of an untouched kernel, and of taken ones."""

import struct

from krie.plugins.syscall_table.events import ENTRY, HANDLER, IDT, POINTER, TABLE, X64
from krie.plugins.syscall_table.pieces import packed
from krie.plugins.syscall_table.switch import read_switch

from .untouched import CALLS, MODULE, NOP, TEXT, Kernel, by_where


def test_places_of_an_untouched_kernel(kernel: Kernel) -> None:
    derived = kernel.derive("some_fops")
    found = by_where(derived)
    (table,) = found[TABLE]
    assert (table.number, table.abi, table.wrong, len(table.expected)) == (0, X64, (), 24)
    assert [each.number for each in found[HANDLER]] == [0, 1, 2]
    assert {each.ftrace for each in found[HANDLER]} == {4}
    switch = found[ENTRY][0]
    assert [(each.offset, each.length, each.number) for each in switch.sites] == [(5, 5, 0), (21, 5, 1), (37, 5, 2)]
    assert switch.wrong == ()
    entry = [each for each in found[ENTRY] if each.name == "do_syscall_64"]
    assert [len(each.expected) for each in entry] == [128, 128, 44]
    assert entry[0].mask[0x10:0x15] == bytes(5)  # a jump label
    assert entry[0].mask[:0x10] == b"\xff" * 0x10
    assert [each.number for each in found[IDT]] == [8 * index for index in range(32)]
    (pointers,) = found[POINTER]
    assert pointers.mask[:32] == bytes(8) + b"\xff" * 8 + bytes(8) + b"\xff" * 8
    assert derived.missing == []
    assert derived.unknown == ["ia32_sys_call_table"]


def test_a_slot_that_was_taken_before(kernel: Kernel) -> None:
    kernel.write(TEXT + 0x200008, struct.pack("=Q", MODULE))
    (table,) = by_where(kernel.derive())[TABLE]
    assert table.wrong == (1,)
    packed_piece = packed([table]).pieces[0]
    assert struct.unpack_from("=3Q", packed_piece, 8) == (kernel.handlers["read"], 0, kernel.handlers["open"])


def test_a_jump_that_was_taken_before(kernel: Kernel) -> None:
    at = TEXT + 0x5000 + 21
    kernel.write(at, b"\xe9" + struct.pack("=i", MODULE - (at + 5)))
    derived = kernel.derive()
    switch = by_where(derived)[ENTRY][0]
    assert [(each.offset, each.number) for each in switch.sites] == [(5, 0), (21, 1), (37, 2)]
    assert (switch.wrong, switch.taken) == ((2,), (range(21, 26),))
    as_told = packed([switch]).pieces[0][8 : 8 + len(switch.expected)]
    assert [index for index, (told, is_) in enumerate(zip(as_told, switch.expected, strict=True)) if told != is_] == [
        *(index for index in range(21, 26) if switch.expected[index])
    ]
    assert derived.missing == []


def test_slot_and_jump_that_were_both_taken_before(kernel: Kernel) -> None:
    kernel.write(TEXT + 0x200008, struct.pack("=Q", MODULE))
    at = TEXT + 0x5000 + 21
    kernel.write(at, b"\xe9" + struct.pack("=i", MODULE - (at + 5)))
    found = by_where(kernel.derive())
    assert [each.wrong for each in found[TABLE]] == [(1,)]
    assert [(each.offset, each.number) for each in found[ENTRY][0].sites] == [(5, 0), (21, 1), (37, 2)]
    assert {each.name for each in found[HANDLER]} == {f"__x64_sys_{call}" for call in CALLS}


def test_a_short_handler_ends_where_the_next_function_begins(kernel: Kernel) -> None:
    """Which has a place of ftrace's of its own, that tracers change."""
    handler = next(each for each in by_where(kernel.derive())[HANDLER] if each.number == 1)
    kernel.symbols["next_function"] = handler.address + 16
    shorter = next(each for each in by_where(kernel.derive())[HANDLER] if each.number == 1)
    assert (len(handler.expected), len(shorter.expected)) == (32, 16)


def test_a_handler_that_nothing_leads_to(kernel: Kernel) -> None:
    kernel.write(TEXT + 0x5000 + 21, b"\x90" * 5)
    (missing,) = kernel.derive().missing
    assert (missing.number, missing.handler, missing.function) == (1, kernel.handlers["write"], TEXT + 0x5000)


def test_a_handler_whose_begin_was_taken_before(kernel: Kernel) -> None:
    for index in range(20):  # so that nearly all begin as they should
        kernel.put(f"__x64_sys_{index}", TEXT + 0x9000 + 0x100 * index, NOP.ljust(64, b"\x90"))
    slots = (*kernel.handlers.values(), *(TEXT + 0x9000 + 0x100 * index for index in range(20)))
    kernel.put("sys_call_table", TEXT + 0x700000, struct.pack("=23Q", *slots))
    kernel.put("end", TEXT + 0x700000 + 23 * 8, bytes(8))
    kernel.write(kernel.handlers["open"], b"\xe9\0\0\0\1")
    kernel.write(TEXT + 0x9000, bytes.fromhex("48c7c0daffffffc3"))  # answers for what is not there: nothing is wrong
    wrong = [each for each in by_where(kernel.derive())[HANDLER] if each.wrong]
    assert [each.name for each in wrong] == ["__x64_sys_open"]


def test_a_kernel_that_hides_its_symbols(kernel: Kernel) -> None:
    kernel.symbols = dict.fromkeys(kernel.symbols, 0)
    derived = kernel.derive()
    assert derived.pieces == []
    assert "kptr_restrict" in derived.unknown[0]


def test_a_kernel_that_tells_no_data(kernel: Kernel) -> None:
    for name in ("sys_call_table", "idt_table", "__start___jump_table"):
        del kernel.symbols[name]
    derived = kernel.derive()
    found = by_where(derived)
    assert [each.number for each in found[HANDLER]] == [0, 1, 2]  # by their names
    assert {len(each.expected) for each in found[HANDLER]} == {16}
    assert set(derived.unknown) == {
        "sys_call_table",
        "ia32_sys_call_table",
        "idt_table",
        "code of do_syscall_64 (no __start___jump_table)",
    }


def test_what_looks_like_a_jump_by_chance() -> None:
    handler, start = TEXT + 0x1000, TEXT + 0x5000
    code = b"\x3d\xe9\x00\x00\x00" + b"\x0f\x84" + struct.pack("=i", handler - (start + 11)) + b"\xc3"
    found = read_switch(start, code, {handler}, range(TEXT, TEXT + 0x100000))
    assert [(each.address - start, each.length) for each in found.jumps] == [(5, 6)]
    assert found.strange == ()
    assert read_switch(start, code, set(), range(0)).jumps == ()
