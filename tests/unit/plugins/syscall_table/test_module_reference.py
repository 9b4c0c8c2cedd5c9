"""Which file a loaded module is compared with, and what one look at all of them tells."""

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from krie import Check, KernelMemory, Symbols
from krie.errors import KernelError
from krie.plugins.syscall_table import module_reference, module_text, modules, text
from krie.plugins.syscall_table.explain import Lists
from krie.plugins.syscall_table.module_reference import images_of
from krie.plugins.syscall_table.modules import Module as Loaded

from ...module_writer import LENGTH, NOTES, Module

TEXT, KERNEL = 0xFFFFFFFFC0001000, 0xFFFFFFFF81000000
MODULE = Loaded("a_b", TEXT, 0x1000, 1)
KALLSYMS = (
    f"{KERNEL:016x} T _stext\n{KERNEL + 0x10:016x} T printk\n{KERNEL + 0x20:016x} t printk\n"
    f"{KERNEL + 0x1000:016x} T _etext\n{TEXT:016x} t caller\t[a_b]\n"
).encode()
FUNCTIONS = {"a_b": [(TEXT, "caller")]}


@dataclass
class Memory:
    """Of the module."""

    content: bytearray = field(default_factory=lambda: bytearray(b"\xcc" * LENGTH))
    gone: bool = False

    def read(self, address: int, size: int) -> bytes:
        if self.gone:
            raise KernelError("it has gone")
        return bytes(self.content[address - TEXT : address - TEXT + size])


def written() -> Module:
    made = Module("caller")
    made.branch(0xE8, "caller", "printk")
    return made


@pytest.fixture
def memory() -> Memory:
    made = Memory()
    made.content[:5] = b"\xe8" + struct.pack("<i", KERNEL + 0x10 - TEXT - 5)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/lib/modules and /sys/module in one."""
    tmp_path.chmod(0o755)
    monkeypatch.setattr(module_reference, "_FOLDER", tmp_path)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", "release", "", "x86_64")))
    monkeypatch.setattr(modules, "_FOLDER", tmp_path)
    release = tmp_path / "release"
    release.mkdir()
    file = written().file()
    (release / "a-b.ko").write_bytes(file)
    (release / "modules.dep").write_text("a-b.ko:\n")
    own = tmp_path / "a_b"
    (own / "notes").mkdir(parents=True)
    (own / "notes" / NOTES).write_bytes(file[file.index(b"GNU\0") - 12 :][:24])
    (own / "sections").mkdir()
    (own / "sections/.text").write_text(f"{TEXT:#x}\n")
    return tmp_path


def why(memory: Memory) -> str:
    images = images_of([MODULE], cast("KernelMemory", memory), KALLSYMS, FUNCTIONS)
    assert not images.made
    return images.without[MODULE]


def test_a_module_has_the_file_of_its_name_and_build(memory: Memory, folder: Path) -> None:
    memory.content[1:5] = bytes(4)
    images = images_of([MODULE], cast("KernelMemory", memory), KALLSYMS, FUNCTIONS)
    (part,) = images.made[MODULE].parts
    assert (part.start, part.content[:5]) == (TEXT, b"\xe8" + struct.pack("<i", KERNEL + 0x10 - TEXT - 5))
    assert images.without == {}
    assert images_of([], cast("KernelMemory", memory), KALLSYMS, FUNCTIONS).made == {}


def test_what_has_no_file_is_said_with_the_reason(
    memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(FUNCTIONS, "a_b", [(TEXT + LENGTH, "elsewhere")])
        assert "tell different places" in why(memory)
    (folder / "a_b/sections/.text").write_text("0x0000000000000000\n")
    assert "kernel.kptr_restrict" in why(memory)
    note = folder / "a_b/notes" / NOTES
    note.write_bytes(note.read_bytes()[:-1] + b"\xff")
    assert "is another build" in why(memory)
    (folder / "release/a-b.ko").chmod(0o666)
    assert "a-b.ko" in why(memory)
    (folder / "release/modules.dep").write_text("")
    assert "no file of this name" in why(memory)
    (folder / "release/modules.dep").unlink()
    assert "modules.dep" in why(memory)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Loaded]:
    """Which modules are loaded."""
    there = [MODULE]
    place = tmp_path / "kallsyms"
    place.write_bytes(KALLSYMS)
    monkeypatch.setattr(module_text, "loaded", lambda: iter(there))
    monkeypatch.setattr(module_text, "kallsyms_text", lambda _: KALLSYMS)
    monkeypatch.setattr(module_text, "Symbols", lambda: Symbols(place=place))
    monkeypatch.setattr(text, "kallsyms_text", lambda _: KALLSYMS)
    for each in (module_text, text):
        monkeypatch.setattr(each, "read_lists", lambda _: Lists(frozenset(), frozenset()))
    monkeypatch.setattr(text, "_BETWEEN_S", 0)
    return there


def look(memory: Memory) -> Check:
    (check,) = module_text.check(cast("KernelMemory", memory), lambda _: None)
    return check


def test_a_look_at_modules(memory: Memory, looking: list[Loaded], folder: Path) -> None:
    check = look(memory)
    assert (check.name, check.compared, check.differences, check.not_looked_at) == ("modules", LENGTH, (), ())
    assert check.reference == f"files below {folder}/release"
    memory.content[0x20] = 0x41
    (found,) = look(memory).differences
    assert (found.address, found.place, found.was, found.now) == (TEXT + 0x20, "caller+0x20 [a_b]", "cc", "41")


def test_a_call_that_leads_elsewhere_is_told(memory: Memory, looking: list[Loaded]) -> None:
    memory.content[:5] = b"\xe8" + struct.pack("<i", KERNEL + 0x20 - TEXT - 5)
    (found,) = look(memory).differences
    assert found.place == "caller+0x1 [a_b]"


def test_modules_without_files_are_said(memory: Memory, looking: list[Loaded], folder: Path) -> None:
    (folder / "release/modules.dep").write_text("")
    check = look(memory)
    assert (check.compared, check.reference) == (0, "")
    assert check.not_looked_at == ("module a_b: no file of this name is in modules.dep",)


def test_a_module_that_goes_meanwhile_is_no_failure(memory: Memory, looking: list[Loaded]) -> None:
    images = images_of([MODULE], cast("KernelMemory", memory), KALLSYMS, FUNCTIONS)
    memory.gone = True
    looking.clear()
    assert module_text._Look(cast("KernelMemory", memory), KALLSYMS).check(images).differences == ()
    looking.append(MODULE)
    with pytest.raises(KernelError):
        module_text._Look(cast("KernelMemory", memory), KALLSYMS).check(images)
