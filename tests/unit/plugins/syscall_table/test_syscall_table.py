"""The plugin without a kernel: what it derives of memory and symbols, how it packs that, what it makes of events."""

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from krie import KernelError, KernelMemory, Maps, Symbols
from krie.kernel.features import Features
from krie.kernel.program import AttachType
from krie.plugins.syscall_table import explained, limits, plugin
from krie.plugins.syscall_table import watch as watching
from krie.plugins.syscall_table.begins import site_in
from krie.plugins.syscall_table.config import SyscallTableConfig
from krie.plugins.syscall_table.derive import SYMBOLS, Derivation
from krie.plugins.syscall_table.derived import Derived
from krie.plugins.syscall_table.events import ENTRY, HANDLER, IDT, POINTER, TABLE, X64, Activity, Hook
from krie.plugins.syscall_table.handlers import handlers
from krie.plugins.syscall_table.kallsyms import Kallsyms
from krie.plugins.syscall_table.numbers import call_of, numbers_by_handler
from krie.plugins.syscall_table.pieces import Piece, Site, cut, packed
from krie.plugins.syscall_table.switch import read_switch
from krie.plugins.syscall_table.watch import Watch, _first_difference
from krie.testing.events import build
from pydantic import ValidationError

TEXT = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0100000
NOP = bytes.fromhex("0f1f440000")
ENDBR = bytes.fromhex("f30f1efa")
CALLS = ("read", "write", "open")


class Kernel(KernelMemory):
    """A small one: three system calls, their table and switch, a gate, a table of functions."""

    def __init__(self, tmp_path: Path) -> None:
        self.parts: dict[int, bytearray] = {}
        self.symbols: dict[str, int] = {"_stext": TEXT, "_etext": TEXT + 0x100000}
        self.file = tmp_path / "kallsyms"
        self.handlers = {call: TEXT + 0x1000 + 0x100 * index for index, call in enumerate(CALLS)}
        for call, address in self.handlers.items():
            self.put(f"__x64_sys_{call}", address, (ENDBR + NOP).ljust(0x100, b"\x90"))
        self.put("sys_call_table", TEXT + 0x200000, struct.pack("=4Q", *self.handlers.values(), 0))
        self.put("after_table", TEXT + 0x200020, bytes(8))
        code = b"".join(self.case(0x5000 + 16 * index, address) for index, address in enumerate(self.handlers.values()))
        self.put("x64_sys_call", TEXT + 0x5000, code)
        self.put("after_switch", TEXT + 0x5000 + len(code), bytes(8))
        self.put("do_syscall_64", TEXT + 0x6000, b"\x90" * 300)
        self.put("after_entry", TEXT + 0x6000 + 300, bytes(8))
        self.put("__start___jump_table", TEXT + 0x300000, struct.pack("=iiq", 0x6010 - 0x300000, 0, 0))
        self.put("__stop___jump_table", TEXT + 0x300010, bytes(8))
        self.put("idt_table", TEXT + 0x400000, bytes(4096))
        self.put("some_fops", TEXT + 0x500000, struct.pack("=4Q", 0, TEXT + 0x1000, 7, TEXT + 0x1100))
        self.put("after_fops", TEXT + 0x500020, bytes(8))

    @staticmethod
    def case(offset: int, handler: int) -> bytes:
        """`cmp $5, %eax; jne ...; jmp handler`, of 16 bytes."""
        jump = b"\x83\xf8\x05\x75\x0b" + b"\xe9" + struct.pack("=i", handler - (TEXT + offset + 10))
        return jump.ljust(16, b"\x90")

    def put(self, name: str, address: int, content: bytes) -> None:
        self.symbols[name], self.parts[address] = address, bytearray(content)

    def write(self, address: int, content: bytes) -> None:
        for start, part in self.parts.items():
            if start <= address < start + len(part):
                part[address - start : address - start + len(content)] = content

    def read(self, address: int, size: int) -> bytes:
        for start, part in self.parts.items():
            if start <= address and address + size <= start + len(part):
                return bytes(part[address - start : address - start + size])
        raise KernelError("reading", 14)

    def derive(self, *pointers: str) -> Derived:
        lines = sorted((address, name) for name, address in self.symbols.items())
        self.file.write_text("".join(f"{address:016x} T {name}\n" for address, name in lines))

        return Derivation(Kallsyms((*SYMBOLS, *pointers), self.file), self).run(pointers)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def by_where(derived: Derived) -> Mapping[int, list[Piece]]:
    return {where: [each for each in derived.pieces if each.where == where] for where in range(1, 7)}


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


@pytest.mark.parametrize("begin", ["f30f1efa", "660f1f00", "0f1f40d6", ""])
@pytest.mark.parametrize("there", ["0f1f440000", "6666666690", "e801020304", "cc1f440000"])
def test_where_ftrace_may_put_a_call(begin: str, there: str) -> None:
    assert site_in(bytes.fromhex(begin + there + "9090909090")) == len(begin) // 2


def test_where_ftrace_has_no_place() -> None:
    assert site_in(bytes.fromhex("f30f1efa" + "4883ec0890")) is None
    assert site_in(bytes.fromhex("e90102030466909090")) is None
    assert site_in(bytes.fromhex("e97bc5d70f1f440000")) is None  # a jump whose end makes a nop of what is left


def test_parts_keep_jumps_whole() -> None:
    assert cut(range(300), [range(126, 131), range(250, 256)]) == [range(126), range(126, 250), range(250, 300)]
    assert cut(range(128)) == [range(128)]
    assert cut(range(0)) == []


def test_pieces_as_programs_have_them() -> None:
    made = packed(
        [
            Piece(HANDLER, 1, ENDBR + NOP, ftrace=4),
            Piece(HANDLER, 2, ENDBR + NOP, ftrace=4),
            Piece(ENTRY, 3, bytes(16), sites=(Site(3, 5, 7),)),
        ]
    )
    assert len(made.pieces) == 3
    assert {len(each) for each in made.pieces} == {312}
    assert made.masks == [(b"\xff" * 4 + bytes(5)).ljust(128, b"\0"), (b"\xff" * 16).ljust(128, b"\0")]
    assert [len(each) for each in made.sites] == [512, 512]
    mask, starts = made.sites[1][:128], made.sites[1][128:256]
    assert mask == (bytes(3) + b"\xff" * 5).ljust(128, b"\0")
    assert starts[2:9] == b"\xff" + b"\3" * 5 + b"\xff"
    assert struct.unpack_from("=128h", made.sites[1], 256)[3:8] == (7,) * 5


def test_more_pieces_than_there_is_room_for() -> None:
    assert len(packed(Piece(ENTRY, each, bytes(8)) for each in range(2000)).pieces) == 1535


def test_the_first_difference() -> None:
    piece = Piece(HANDLER, 0, ENDBR + NOP + b"\x55" * 7, ftrace=4)
    assert _first_difference(piece, ENDBR + b"\xe8\1\2\3\4" + b"\x55" * 6 + b"\xcc") == 15
    assert _first_difference(piece, ENDBR + b"\xe9\1\2\3\4" + b"\x55" * 7) == 4
    assert _first_difference(piece, b"\xe9\1\2\3\4\0\0\0\0" + b"\x55" * 7) == 0


def test_numbers_by_names() -> None:
    named = {1: ("__x64_sys_read",), 2: ("__x64_sys_newstat",), 3: ("__x64_sys_no_such_call",), 4: ("__ia32_sys_read",)}
    assert numbers_by_handler(named, X64) == {1: 0, 2: 4}
    assert call_of("__ia32_compat_sys_open") == "open"


def test_what_explains_code(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        "kprobes/list": ["ffffffff81000010  k  f+0x10    [OPTIMIZED]", "ffffffff81000100  k  g+0x0  [GONE]"],
        "enabled_functions": ["traced (1) R", "\ttramp: f+0x1/0x2"],
    }
    monkeypatch.setattr(explained, "_lines", lambda where: lists[where[1]])
    causes = explained.Causes()
    assert causes.of(TEXT + 0x12, "f", 0) == "kprobe"
    assert causes.of(TEXT + 0x40, "f", 0) == ""
    assert causes.of(TEXT + 0x100, "g", 0) == ""
    assert causes.of(TEXT + 0x40, "traced", 0) == "ftrace"
    lists["enabled_functions"] = []
    assert causes.of(TEXT + 0x40, "traced", 1) == "ftrace"  # seen before that was read
    assert causes.of(TEXT + 0x40, "traced", time.clock_gettime_ns(time.CLOCK_BOOTTIME)) == ""


def test_probes_by_configuration() -> None:
    def names(**keys: Any) -> list[str]:
        config = SyscallTableConfig.model_validate(keys)
        return [each.name for each in plugin.krie_sensor(config, Features()).probes]

    assert names() == [
        *("timer", "module_init", "module_load", "module_free", "text_poke", "set_memory", "alias"),
        *("wrapped_kill", "wrapped_getdents", "wrapped_getdents64"),
    ]
    assert names(alias_mappings=False, wrapped=())[-1] == "set_memory"
    with pytest.raises(ValidationError):
        names(wrapped=("no;name",))
    with pytest.raises(ValidationError):
        names(wrapped=tuple(f"call{index}" for index in range(17)))


def test_what_is_not_looked_at_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "kallsyms"
    names = ("sys_call_table", "__start___jump_table", *limits.SYMBOLS)
    place.write_text("".join(f"{0xFFFFFFFF81000000 + 8 * at:x} D {name}\n" for at, name in enumerate(names[:-2])))
    symbols = Kallsyms((*names, "idt_table"), place)
    monkeypatch.setattr(limits, "PLACES", (str(place),))
    said = limits.limits(SyscallTableConfig(), symbols)
    for part in (
        "where idt_table is",
        "LSTAR",
        "bits of CR4 it pins",
        "IDTR",
        "lists of kernel threads, binary formats are",
        "code of modules",
    ):
        assert part in said
    assert "image" not in said
    monkeypatch.setattr(limits, "PLACES", ())
    assert "there is no boot image" in limits.limits(SyscallTableConfig(), symbols)
    without_code = limits.limits(SyscallTableConfig(code=False), symbols)
    assert "lists of functions are looked at (code = false)" in without_code
    assert "timers" not in without_code


def test_each_handler_has_a_number_of_its_own() -> None:
    made = list(handlers([f"call{index}" for index in range(16)]))
    assert len({each.index for each in made}) == 48
    assert min(each.index for each in made) == 1
    assert max(each.index for each in made) < 64  # entries of the map
    programs = [
        program
        for probe in plugin.krie_sensor(SyscallTableConfig(), Features()).probes
        for program in probe.alternatives[0].programs
        if program.attach is AttachType.KPROBE
    ]
    assert len({each.argument for each in programs}) == len(programs) == 9


class Table:
    """A map that remembers."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def set(self, key: bytes, value: bytes) -> None:
        self.values[key] = value

    def array(self) -> list[bytes]:
        return list(self.values.values())


@pytest.fixture
def watch(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Watch:
    kernel.derive()  # which writes its symbols
    tables = {f"syscall_table_{name}": Table() for name in ("look", "handlers", "kernel", "pieces", "masks", "sites")}
    tables["syscall_table_look"].set(bytes(4), bytes(128) + struct.pack("=4Q", 0, 0, 5, 1))
    symbols = Kallsyms(SYMBOLS, kernel.file)
    monkeypatch.setattr(explained, "_lines", lambda _: [])
    monkeypatch.setattr(watching, "Symbols", lambda: Symbols(place=kernel.file))
    config = SyscallTableConfig(shipped_pointers=False)
    made = Watch(cast("Maps", tables), kernel, symbols, config, tuple(handlers(config.wrapped)))
    assert len(tables["syscall_table_pieces"].values) == len(made.derived.pieces)
    assert {len(each) for each in tables["syscall_table_kernel"].values.values()} == {24 * 8}
    return made


def changed(watch: Watch, kernel: Kernel, name: str, offset: int, content: bytes, **fields: Any) -> Mapping[str, Any]:
    """Facts of what is told where a piece of this name is changed."""
    index, piece = next((i, each) for i, each in enumerate(watch.derived.pieces) if each.name == name)
    kernel.write(piece.address + offset, content)
    now = kernel.read(piece.address, len(piece.expected)).ljust(128, b"\0")
    return watch.facts(build(Hook, piece=index, content=now, address=piece.address, **fields))


def test_names_for_a_slot(watch: Watch, kernel: Kernel) -> None:
    values = {"was": kernel.handlers["write"], "now": MODULE, "number": 1}
    facts = changed(watch, kernel, "sys_call_table", 8, struct.pack("=Q", MODULE), **values)
    assert (facts["syscall"], facts["was_symbol"], facts["owner"]) == ("write", "__x64_sys_write", "?")


def test_names_for_a_handlers_first_bytes(watch: Watch, kernel: Kernel) -> None:
    facts = changed(watch, kernel, "__x64_sys_open", 0, b"\xe9\0\0\0\0", where="handler")
    assert (facts["place"], facts["syscall"], facts["explained"]) == ("__x64_sys_open+0x0", "open", "")
    assert facts["bytes_was"].startswith((ENDBR + NOP).hex())
    assert facts["bytes_now"].startswith("e900000000")
    assert facts["owner"] == "kernel"


def test_a_breakpoint_that_has_gone_meanwhile_was_a_kprobes(watch: Watch, kernel: Kernel) -> None:
    index, piece = next((i, each) for i, each in enumerate(watch.derived.pieces) if each.name == "__x64_sys_open")
    now = (piece.expected[:12] + b"\xcc" + piece.expected[13:]).ljust(128, b"\0")
    event = build(Hook, piece=index, content=now, address=piece.address, where="handler")
    assert watch.facts(event)["explained"] == "kprobe"
    kernel.write(piece.address + 12, b"\xcc")
    assert watch.facts(event)["explained"] == ""


def test_what_is_told_at_a_scan(watch: Watch) -> None:
    (line,) = watch.scan(None)
    assert isinstance(line, Activity)
    assert (line.text_bytes, line.reference) == (0, "none")
    assert (line.looks, line.unreadable, line.unknown) == (5, 1, "ia32_sys_call_table")
