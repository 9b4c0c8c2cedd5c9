"""What the plugin makes of events, and tells at a scan."""

import struct
from collections.abc import Mapping
from typing import Any, cast

import pytest
from krie import Maps, Symbols
from krie.plugins.syscall_table import explained
from krie.plugins.syscall_table import watch as watching
from krie.plugins.syscall_table.config import SyscallTableConfig
from krie.plugins.syscall_table.control import Lost
from krie.plugins.syscall_table.derive import SYMBOLS
from krie.plugins.syscall_table.derived import Missing
from krie.plugins.syscall_table.events import TABLE, X64, Activity, Hook
from krie.plugins.syscall_table.handlers import handlers
from krie.plugins.syscall_table.kallsyms import Kallsyms
from krie.plugins.syscall_table.registers import Change
from krie.plugins.syscall_table.watch import Watch
from krie.testing.events import build

from .fake_maps import remembering
from .untouched import ENDBR, MODULE, NOP, TEXT, Kernel

LSTAR = 0xC0000082


@pytest.fixture
def watch(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Watch:
    kernel.derive()  # which writes its symbols
    tables = remembering()
    tables["syscall_table_look"].set(bytes(4), bytes(128) + struct.pack("=4Q", 0, 0, 5, 1))
    symbols = Kallsyms(SYMBOLS, kernel.file)
    monkeypatch.setattr(explained, "_lines", lambda *_: [])
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


def test_who_hides_behind_a_module_that_is_listed_is_nobody(watch: Watch, kernel: Kernel) -> None:
    kernel.of_modules = f"{MODULE:016x} t last\t[listed]\n"
    kernel.list_symbols()
    watch._symbols.renew()
    hidden, slot = MODULE + 0x3000, struct.pack("=Q", MODULE + 0x3000)
    facts = changed(watch, kernel, "sys_call_table", 8, slot, was=0, now=hidden)
    assert (facts["symbol"], facts["owner"]) == ("", "?")
    watch._modules = f"listed {0x4000} {MODULE:#x}"
    assert (watch._name(hidden), watch._owner(hidden)) == ("last+0x3000 [listed]", "listed")


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


def test_a_handler_without_a_slot_is_told_once(watch: Watch, kernel: Kernel) -> None:
    table = kernel.symbols["sys_call_table"]
    watch._missing = [Missing(X64, -1, kernel.handlers["open"], table, TABLE)]
    event, _ = watch.scan(None)
    assert isinstance(event, Hook)
    assert (event.where, event.abi, event.trigger, event.target) == ("table", "x64", "start", "kernel")
    assert (event.number, event.address, event.was, event.now) == (-1, table, kernel.handlers["open"], 0)
    facts = watch.facts(event)
    assert (facts["place"], facts["syscall"], facts["was_symbol"]) == ("sys_call_table", "open", "__x64_sys_open")
    assert [type(each) for each in watch.scan(None)] == [Activity]


def test_registers_are_told_with_what_they_hold_and_held(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [Change(LSTAR, 1, 2, TEXT + 3, restored=False), Change(LSTAR, 1, 2, MODULE, restored=False)]
    monkeypatch.setattr(watch._registers, "look", lambda: iter(changes))
    monkeypatch.setattr(watch._control, "look", lambda: iter([Lost(4, 5, 6, 7, restored=True)]))
    *told, _ = watch.scan(None)
    hooks = [each for each in told if isinstance(each, Hook)]
    assert {(each.where, each.trigger) for each in hooks} == {("register", "scan")}
    assert [(each.address, each.was, each.now, each.number, each.target, each.restored) for each in hooks] == [
        (LSTAR, 2, TEXT + 3, 1, "kernel", False),
        (LSTAR, 2, MODULE, 1, "other", False),
        (5, 6, 7, 4, "none", True),
    ]
