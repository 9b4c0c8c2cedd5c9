"""What the process that compares code reports: names, owners, modules and BPF programs that come and go."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from krie import Symbols
from krie.kernel.bpf_functions import BpfFunction
from krie.plugins.syscall_table import code_child, module_areas, names
from krie.plugins.syscall_table.areas import Stored
from krie.plugins.syscall_table.code_child import Report, _Looks
from krie.plugins.syscall_table.entered import Change
from krie.plugins.syscall_table.entry import Entry
from krie.plugins.syscall_table.explain import Lists
from krie.plugins.syscall_table.image import NOP5
from krie.plugins.syscall_table.module_image import ModuleImage
from krie.plugins.syscall_table.module_reference import ModuleImages
from krie.plugins.syscall_table.modules import Module
from krie.plugins.syscall_table.reference import Part
from krie.plugins.syscall_table.runs import Ranges
from krie.plugins.syscall_table.tables import Tables

from .compared_code import FUNCTION, MODULE, TEXT, Memory

KALLSYMS = f"""\
{TEXT.start:016x} T _stext
{FUNCTION:016x} T function
{TEXT.stop:016x} T _etext
{MODULE.start + 0x10:016x} t hook\t[evil]
{MODULE.stop + 0x88:016x} r operations\t[evil]
"""
EVIL = Module("evil", MODULE.start, len(MODULE), 1)
PROGRAM = BpfFunction(7, "filter", MODULE.stop + 0x10, 0x40)


class Setting:
    """A kernel with one module and one BPF program, if they are there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory = Memory()
        self.memory.parts[range(MODULE.stop, MODULE.stop + 0x100)] = bytearray(0x100)
        self.modules, self.programs = [EVIL], [PROGRAM]
        self.entries: list[Entry] = []
        self.fleeting: list[Entry] = []
        place = folder / "kallsyms"
        place.write_text(KALLSYMS)
        self.file = os.memfd_create("reference")
        os.write(self.file, bytes(self.memory.parts[TEXT]))
        monkeypatch.setattr(code_child, "KALLSYMS", place)
        monkeypatch.setattr(names, "KALLSYMS", place)
        monkeypatch.setattr(code_child, "Symbols", lambda: Symbols(place=place))
        monkeypatch.setattr(code_child, "loaded", lambda: iter(self.modules))
        monkeypatch.setattr(
            code_child, "ranges", lambda: [range(each.start, each.start + each.size) for each in self.modules]
        )
        monkeypatch.setattr(code_child, "bpf_functions", lambda: iter(self.programs))
        monkeypatch.setattr(code_child, "offsets", dict)
        monkeypatch.setattr(code_child, "_SETTLES_S", 0)
        monkeypatch.setattr(code_child, "brief_lists", lambda generated: Lists(None, frozenset(), {}, generated))
        stored = Stored("start", "", (("text", TEXT.start, len(TEXT), 0),), (0, 0), (), ("code before",))
        symbols = Symbols(place=place)
        self.looks = _Looks(self.memory.kernel, stored, self.file, place.read_bytes(), symbols)
        self.looks._comparison._sleep = lambda _: None
        monkeypatch.setattr(self.looks._functions, "by_list", self._walk)
        self.walks: Iterator[list[Entry]] = iter(())
        """What further walks find, where that is not `entries`."""

    def _walk(self) -> tuple[dict[str, list[Entry]], list[str]]:
        return {"notifiers": list(next(self.walks, self.entries)), "timers": list(self.fleeting)}, []


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    made = Setting(tmp_path, monkeypatch)
    yield made
    os.close(made.file)


def test_where_a_jump_leads_is_named(setting: Setting) -> None:
    report = setting.looks.take()
    areas = ((TEXT.start, len(TEXT)), (MODULE.start, 0x1000), (PROGRAM.start, PROGRAM.size))
    unknown = ("code before", "code of modules before their first look: evil")  # which no file tells
    assert report == Report(len(TEXT) + 0x1000 + 0x40, unknown=unknown, areas=areas)
    setting.memory.write(FUNCTION + 2, b"\xe9" + struct.pack("<i", MODULE.start + 0x10 - FUNCTION - 7))
    (found,) = setting.looks.take().differences
    assert (found.section, found.place, found.length, found.module) == ("text", "function+0x2", 5, "")
    assert (found.target_symbol, found.owner) == ("hook+0x0 [evil]", "evil")
    setting.memory.write(FUNCTION + 2, b"\xe9" + struct.pack("<i", 0x100))
    (found,) = setting.looks.take().differences
    assert found.owner == "kernel"


def test_code_of_modules_and_programs(setting: Setting) -> None:
    setting.looks.take()
    setting.memory.write(MODULE.start + 0x20, b"\x41")
    setting.memory.write(PROGRAM.start + 1, b"\x42")
    module, program = setting.looks.take().differences
    assert (module.section, module.place, module.module) == ("module", "hook+0x10 [evil]", "evil")
    assert (program.section, program.place, program.module) == ("bpf", "bpf_prog filter+0x1", "")
    setting.modules, setting.programs = [], []
    report = setting.looks.take()
    assert report.differences == ()
    assert not any(map(report.says_of, (module, program)))


def test_a_module_that_comes_later_is_compared_from_then_on(setting: Setting) -> None:
    setting.modules = []
    assert setting.looks.take().compared == len(TEXT) + PROGRAM.size
    setting.modules = [EVIL]
    report = setting.looks.take()
    assert (report.compared, report.differences) == (len(TEXT) + 0x1000 + PROGRAM.size, ())
    setting.memory.write(MODULE.start + 0x20, b"\x41")
    (found,) = setting.looks.take().differences
    assert (found.section, found.place) == ("module", "hook+0x10 [evil]")


def test_a_modules_file_tells_what_its_code_is(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed before it was first seen, too; and jumps may become nops where the file says so, only."""
    start = MODULE.start
    code = bytearray(setting.memory.parts[MODULE])
    code[0x20:0x22] = code[0x30:0x32] = bytes.fromhex("6690")
    tables = Tables({start + 0x20: start + 0x40})
    image = ModuleImage((Part("module", start, bytes(code)),), tables, Ranges(()), Ranges(()), ())
    monkeypatch.setattr(code_child, "images_of", lambda modules, *_: ModuleImages(dict.fromkeys(modules, image)))
    setting.memory.write(start + 0x20, b"\xeb\x1e")
    setting.memory.write(start + 0x30, b"\xeb\x0e")
    report = setting.looks.take()
    assert report.unknown == ("code before",)
    (found,) = report.differences
    assert (found.section, found.place, found.reference) == ("module", "hook+0x20 [evil]", "file")


def test_a_module_without_a_file_is_said(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_child, "images_of", lambda modules, *_: ModuleImages({}, dict.fromkeys(modules, "none")))
    said = "code of modules before their first look: evil"
    assert said in setting.looks.take().unknown
    assert said in setting.looks.take().unknown
    setting.memory.write(MODULE.start + 0x20, b"\x41")
    (found,) = setting.looks.take().differences
    assert found.reference == "load"
    setting.modules = []
    assert said not in setting.looks.take().unknown


def test_a_pointer_in_a_modules_data(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    data = range(MODULE.stop + 0x80, MODULE.stop + 0xC0)
    monkeypatch.setattr(module_areas, "read_only_data", lambda _: data)
    setting.modules = [replace(EVIL, size=len(MODULE) + 0x100)]
    setting.memory.write(data.start, NOP5)
    setting.looks.take()
    setting.memory.write(data.start, b"\xe9" + struct.pack("<i", FUNCTION - data.start - 5))  # legal in code only
    (found,) = setting.looks.take().differences
    assert (found.section, found.place, found.module) == ("rodata", f"{data.start:#x}", "evil")
    setting.memory.write(data.start, NOP5)
    setting.memory.write(data.start + 16, struct.pack("=Q", FUNCTION + 1))
    (found,) = setting.looks.take().differences
    assert (found.section, found.place, found.module) == ("rodata", "operations+0x8 [evil]", "evil")
    assert (found.target, found.target_symbol, found.owner) == (FUNCTION + 1, "function+0x1", "kernel")
    setting.modules = []
    assert setting.looks.take().differences == ()


def test_functions_in_lists_belong_to_somebody(setting: Setting) -> None:
    setting.entries = [Entry("die_chain", 0x1000, FUNCTION), Entry("die_chain", 0x1010, MODULE.start + 0x10)]
    assert setting.looks.take().differences == ()
    setting.modules = []
    (found,) = setting.looks.take().differences
    assert (found.section, found.place, found.address, found.target) == (
        "list",
        "die_chain",
        0x1010,
        MODULE.start + 0x10,
    )
    assert found.owner == "?"


def test_who_hides_behind_a_module_that_is_listed_is_nobody(setting: Setting) -> None:
    setting.looks.take()
    hidden = MODULE.stop + 0x8000
    setting.memory.write(FUNCTION + 2, b"\xe9" + struct.pack("<i", hidden - FUNCTION - 7))
    (found,) = setting.looks.take().differences
    assert (found.target, found.target_symbol, found.owner) == (hidden, "", "?")


def test_what_cannot_be_read_is_said(setting: Setting) -> None:
    del setting.memory.parts[TEXT]
    report = setting.looks.take()
    assert report.compared == 0
    assert "EFAULT" in report.unknown[-1]


OWN = Entry("die_chain", 0x1000, FUNCTION)
HOOK = Entry("die_chain", 0x1010, MODULE.start + 0x10)


def test_what_comes_to_a_list_and_goes_is_told_with_its_owner(setting: Setting) -> None:
    setting.entries = [OWN]
    assert setting.looks.take().changes == ()
    setting.entries, setting.fleeting = [OWN, HOOK], [HOOK]
    assert setting.looks.take().changes == (Change(HOOK, True, "hook+0x0 [evil]", "evil"),)
    assert setting.looks.take().changes == ()
    setting.entries, setting.modules, setting.fleeting = [], [], []
    report = setting.looks.take()
    assert report.changes == (
        Change(OWN, False, "function+0x0", "kernel"),
        Change(HOOK, False, "hook+0x0 [evil]", "evil"),
    )
    assert report.differences == ()


def test_what_only_one_walk_finds_is_not_told_yet(setting: Setting) -> None:
    """A list changed while it was walked."""
    setting.entries = [OWN]
    setting.looks.take()
    setting.walks = iter([[OWN, HOOK], [OWN]])
    assert setting.looks.take().changes == ()
    setting.walks = iter([[OWN], [OWN]])
    assert setting.looks.take().changes == ()


def test_what_comes_and_is_nobodys_is_a_difference_and_no_change(setting: Setting) -> None:
    setting.entries, setting.modules = [OWN], []
    setting.looks.take()
    setting.entries = [OWN, HOOK]
    report = setting.looks.take()
    assert ([each.address for each in report.differences], report.changes) == ([HOOK.address], ())
    setting.entries = [OWN]
    report = setting.looks.take()
    assert (report.differences, report.changes) == ((), ())


def test_many_changes_are_told_at_several_looks(setting: Setting) -> None:
    setting.looks.take()
    setting.entries = [Entry("die_chain", 8 * number, FUNCTION) for number in range(100)]
    assert [len(setting.looks.take().changes) for _ in range(3)] == [64, 36, 0]
