"""Modules, as /proc/modules and the kernel's symbols have them, and sections of the kernel's data."""

from pathlib import Path

import pytest
from krie.plugins.syscall_table import modules
from krie.plugins.syscall_table.areas import module_functions
from krie.plugins.syscall_table.kallsyms import addresses_in, all_addresses_in
from krie.plugins.syscall_table.modules import Module, extents_of

KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000040 D module_notify_list
ffffffffc0001010 t begin\t[one]
ffffffffc0003000 t end\t[one]
ffffffffc0009000 t init\t[one]
ffffffffc0020000 t prog\t[bpf]
ffffffffc0001018 d data\t[one]
ffffffff81000080 d formats
ffffffff810000c0 d formats
"""


def test_modules_reach_from_their_first_function_to_their_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "modules"
    place.write_text(
        "one 20480 0 - Live 0xffffffffc0001000\nkrie_gone 4096 1 one, Live 0xffffffffc0100000\n"
        "two 4096 0 - Loading 0xffffffffc0200000 (OE)\n"
    )
    monkeypatch.setattr(modules, "_MODULES", place)
    monkeypatch.setattr(modules, "_FOLDER", tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (found,) = modules.loaded()
    assert found == Module("one", 0xFFFFFFFFC0001000, 20480, (tmp_path / "one").stat().st_ino)
    assert [(each.start, len(each)) for each in modules.ranges()] == [
        (0xFFFFFFFFC0001000, 20480),
        (0xFFFFFFFFC0100000, 4096),
        (0xFFFFFFFFC0200000, 4096),
    ]
    functions = module_functions(KALLSYMS.encode())
    assert [name for _, name in functions["one"]] == ["begin", "end", "init"]
    assert extents_of([found], functions) == {found: range(0xFFFFFFFFC0001000, 0xFFFFFFFFC0004000)}
    place.unlink()
    assert (list(modules.loaded()), modules.ranges()) == ([], [])


def test_read_only_data_ends_at_the_next_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_FOLDER", tmp_path)
    sections = tmp_path / "one/sections"
    module = Module("one", 0xFFFFFFFFC0001000, 0x5000, 1)
    assert modules.read_only_data(module) == range(0)
    sections.mkdir(parents=True)
    starts = {".text": 0xC0001000, ".rodata": 0xC0003000, ".rodata.str1.1": 0xC0003140, ".data": 0xC0005000}
    for name, start in starts.items():
        (sections / name).write_text(f"0xffffffff{start:08x}\n")
    assert modules.read_only_data(module) == range(0xFFFFFFFFC0003000, 0xFFFFFFFFC0003140)
    (sections / ".rodata.str1.1").write_text("0xffffffffc0200000\n")  # in memory of its own
    (sections / ".data").unlink()
    assert modules.read_only_data(module) == range(0)


def test_addresses_are_the_kernels_own_and_of_one_symbol() -> None:
    address = addresses_in(KALLSYMS.encode(), ("_stext", "module_notify_list", "begin", "formats"))
    assert [address(each) for each in ("_stext", "module_notify_list", "begin", "formats")] == [
        0xFFFFFFFF81000000,
        0xFFFFFFFF81000040,
        0,
        0,
    ]
    assert all_addresses_in(KALLSYMS.encode(), ("formats",)) == {"formats": {0xFFFFFFFF81000080, 0xFFFFFFFF810000C0}}
