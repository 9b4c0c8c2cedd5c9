"""Places that system calls pass, derived of memory and symbols: of an untouched kernel, and of taken ones."""

import struct

import pytest
from krie.plugins.syscall_table.derived import Missing
from krie.plugins.syscall_table.events import ENTRY, HANDLER, IDT, POINTER, TABLE, X64
from krie.plugins.syscall_table.pieces import Piece, packed
from krie.plugins.syscall_table.switch import read_switch

from .untouched import CALLS, ENDBR, MODULE, NOP, TEXT, Kernel, by_where


def slots_of(table: Piece) -> tuple[int, ...]:
    """Where looks expect them to lead; 0: nobody knows."""
    return struct.unpack_from(f"={len(table.expected) // 8}Q", packed([table]).pieces[0], 8)


def rename(kernel: Kernel, call: str, other: str) -> None:
    kernel.symbols[f"__x64_sys_{other}"] = kernel.symbols.pop(f"__x64_sys_{call}")


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
    assert slots_of(table) == tuple(kernel.handlers.values())  # its name tells where it should lead


def test_a_slot_that_was_taken_before_of_a_handler_whose_number_is_not_known(kernel: Kernel) -> None:
    rename(kernel, "write", "no_such_call")
    kernel.write(TEXT + 0x200008, struct.pack("=Q", MODULE))
    derived = kernel.derive()
    (table,) = by_where(derived)[TABLE]
    assert (table.wrong, derived.missing) == ((1,), [])
    assert slots_of(table) == (kernel.handlers["read"], 0, kernel.handlers["open"])


@pytest.mark.parametrize("switched", [True, False])
@pytest.mark.parametrize("other", ["open", "ni_syscall"])
def test_a_slot_that_was_led_to_another_handler_before(kernel: Kernel, switched: bool, other: str) -> None:
    kernel.put("__x64_sys_ni_syscall", TEXT + 0x2000, (ENDBR + NOP).ljust(0x100, b"\x90"))
    if not switched:
        del kernel.symbols["x64_sys_call"]
    kernel.write(TEXT + 0x200008, struct.pack("=Q", kernel.symbols[f"__x64_sys_{other}"]))
    derived = kernel.derive()
    found = by_where(derived)
    (table,) = found[TABLE]
    assert (table.wrong, derived.missing) == ((1,), [])
    assert slots_of(table) == tuple(kernel.handlers.values())
    assert {each.number: each.name for each in found[HANDLER]} == {
        number: f"__x64_sys_{call}" for number, call in enumerate(CALLS)
    }


def test_two_slots_that_were_exchanged_before(kernel: Kernel) -> None:
    kernel.write(TEXT + 0x200000, struct.pack("=2Q", kernel.handlers["write"], kernel.handlers["read"]))
    (table,) = by_where(kernel.derive())[TABLE]
    assert table.wrong == (0, 1)


@pytest.mark.parametrize("slot", [0, 2])
def test_a_slot_that_was_emptied_before(kernel: Kernel, slot: int) -> None:
    """Behind the last one there are empty ones, up to where the next variable is aligned."""
    kernel.write(TEXT + 0x200000 + 8 * slot, bytes(8))
    (table,) = by_where(kernel.derive())[TABLE]
    assert table.wrong == (slot,)
    assert slots_of(table) == tuple(kernel.handlers.values())


@pytest.mark.parametrize(("other", "told"), [("read", 1), ("", 1), ("write", 0)])
def test_a_handler_that_the_switch_has_and_no_slot(kernel: Kernel, other: str, told: int) -> None:
    """Of a system call that is newer than the names that are known."""
    rename(kernel, "open", "no_such_call")
    kernel.write(TEXT + 0x200010, struct.pack("=Q", kernel.handlers.get(other, 0)))
    if not told:  # the switch does not have it either
        kernel.write(TEXT + 0x5000 + 37, b"\x90" * 5)
    missing = kernel.derive().missing
    expected = Missing(X64, -1, kernel.handlers["open"], TEXT + 0x200000, TABLE)
    assert missing == [expected] * told


def test_what_the_switch_may_have_beside_the_slots(kernel: Kernel) -> None:
    """What answers for system calls that are not there, and a body that a compiler put in its handler's place."""
    rename(kernel, "open", "ni_syscall")
    kernel.symbols["__do_sys_write"] = kernel.symbols.pop("__x64_sys_write")
    kernel.write(TEXT + 0x200008, struct.pack("=2Q", *[kernel.handlers["read"]] * 2))
    assert kernel.derive().missing == []


def test_slots_that_may_lead_elsewhere_than_their_names_say(kernel: Kernel) -> None:
    """A handler of 32-bit callers has the name, or none has."""
    kernel.put("__x64_sys_newstat", TEXT + 0x2000, (ENDBR + NOP).ljust(0x100, b"\x90"))
    kernel.put("__x64_sys_stat", TEXT + 0x2100, (ENDBR + NOP).ljust(0x100, b"\x90"))
    kernel.put("__x64_sys_ni_syscall", TEXT + 0x2200, (ENDBR + NOP).ljust(0x100, b"\x90"))
    slots = [*kernel.handlers.values(), TEXT + 0x2200, TEXT + 0x2000]  # 3 is close(), which this kernel has not
    kernel.put("sys_call_table", TEXT + 0x700000, struct.pack("=8Q", *slots, 0, 0, 0))
    kernel.put("end", TEXT + 0x700000 + 64, bytes(8))
    del kernel.symbols["x64_sys_call"]
    derived = kernel.derive()
    (table,) = by_where(derived)[TABLE]
    assert (table.wrong, slots_of(table), derived.missing) == ((), tuple(slots), [])


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
    assert (missing.number, missing.handler, missing.start) == (1, kernel.handlers["write"], TEXT + 0x5000)


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


def constant(kernel: Kernel, *words: int) -> None:
    """A table of functions that is part of the kernel's constant data."""
    content = struct.pack(f"={len(words)}Q", *words).ljust(0x100, b"\0")
    kernel.put("__start_rodata", TEXT + 0x600000, bytes(8))
    kernel.put("fixed_ops", TEXT + 0x600100, content)
    kernel.put("__start_ro_after_init", TEXT + 0x600200, bytes(8))
    kernel.put("written_ops", TEXT + 0x600300, content)
    kernel.put("__end_ro_after_init", TEXT + 0x600400, bytes(8))
    kernel.put("__end_rodata", TEXT + 0x600500, bytes(8))


@pytest.mark.parametrize("stray", [MODULE, 0xFFFFC90000001000, 0xFFFF888000001000])
def test_a_constant_pointer_that_led_elsewhere_before(kernel: Kernel, stray: int) -> None:
    """Also to a module that is listed: it was not there when the kernel was built."""
    kernel.modules = [range(MODULE, MODULE + 0x1000)]
    constant(kernel, TEXT + 0x1000, stray, 0, TEXT + 0x600000, 0xFFFFFFFFFFFFFFFB, 0xFFFFFFFF00000005)
    (pointers,) = by_where(kernel.derive("fixed_ops"))[POINTER][:1]
    assert (pointers.wrong, pointers.name) == ((1,), "fixed_ops")
    assert pointers.mask[:48] == b"\xff" * 16 + bytes(32)
    assert slots_of(pointers)[:3] == (TEXT + 0x1000, 0, 0)  # where it should lead to is not known


def test_a_variables_pointer_that_led_to_nobody_before(kernel: Kernel) -> None:
    """Of a variable that is written, pointers to data of modules and to what is allocated are legal."""
    kernel.modules = [range(MODULE, MODULE + 0x1000)]
    kernel.of_modules = f"{MODULE + 0x8000:016x} d format\t[binfmt]\n"
    allocated = 0xFFFF888000001000
    words = (TEXT + 0x1000, MODULE + 0x10, MODULE + 0x8000, MODULE + 0x8000 + 4096, allocated)
    constant(kernel, *words)
    (pointers,) = by_where(kernel.derive("written_ops"))[POINTER][:1]
    assert (pointers.wrong, pointers.offset) == ((3,), 0)
    assert pointers.mask[:40] == b"\xff" * 8 + bytes(16) + b"\xff" * 8 + bytes(8)
    kernel.modules.append(range(MODULE + 0x9000, MODULE + 0xA000))
    (pointers,) = by_where(kernel.derive("written_ops"))[POINTER][:1]
    assert pointers.wrong == ()


def test_a_variable_that_leads_only_astray(kernel: Kernel) -> None:
    constant(kernel, MODULE, MODULE + 8)
    (pointers,) = by_where(kernel.derive("fixed_ops"))[POINTER][:1]
    assert pointers.wrong == (0, 1)


def test_a_gate_that_led_out_of_the_kernel_before(kernel: Kernel) -> None:
    def gate(to: int, present: int = 1) -> bytes:
        return struct.pack("=2Q", to & 0xFFFF | present << 47 | (to >> 16 & 0xFFFF) << 48, to >> 32)

    table = TEXT + 0x400000
    for vector, content in ((3, gate(TEXT)), (9, gate(MODULE)), (10, gate(MODULE, present=0)), (11, gate(0x1000))):
        kernel.write(table + 16 * vector, content)
    first, second, *others = by_where(kernel.derive())[IDT]
    assert {each.wrong for each in (first, *others)} == {()}
    assert (second.wrong, second.taken) == ((2, 6), (range(16, 32), range(48, 64)))
