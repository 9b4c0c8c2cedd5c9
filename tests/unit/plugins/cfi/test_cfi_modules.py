"""What modules call, by their files."""

import io
import json
import lzma
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from krie import ModuleFile, module_files
from krie.errors import KernelError
from krie.plugins.cfi import module_reading
from krie.plugins.cfi.maps import Place
from krie.plugins.cfi.module_calls import READ, UNREAD, WITHOUT, ModuleCalls
from krie.plugins.cfi.module_file import calls_in

from ...module_writer import LENGTH, NOTES, Module

THROUGH = {"locked": ["locked", "jumper"], "other": ["other"]}
CODE = 0xFFFFFFFFC0000000
CALLED, JUMPED = 0xE8, 0xE9


def module() -> tuple[Module, int]:
    """One that calls a locked function once."""
    made = Module("caller", "bystander", "through")
    made.branch(CALLED, "bystander", "printk")
    return made, made.branch(CALLED, "caller", "locked")


def places(made: Module, function: str = "locked") -> list[tuple[str, int]]:
    return calls_in(ModuleFile(made.file()), THROUGH).places[function]


def test_calls_are_found_by_their_relocations() -> None:
    made, end = module()
    found = calls_in(ModuleFile(made.file()), THROUGH)
    assert (found.places, found.open) == ({"locked": [(".text", end)], "other": []}, [])
    assert found.sections == {".text": 3 * LENGTH}


def test_calls_of_what_leads_there_count() -> None:
    made = Module("caller")
    assert places(made) == []
    end = made.branch(CALLED, "caller", "jumper")
    assert places(made) == [(".text", end)]


def test_jumps_within_the_module_are_followed() -> None:
    made = Module("caller", "through")
    made.branch(JUMPED, "through", "locked")
    end = made.branch(CALLED, "caller", "through")
    assert places(made) == [(".text", end)]
    assert calls_in(ModuleFile(made.file()), THROUGH).open == []
    made.pointer("through")
    assert calls_in(ModuleFile(made.file()), THROUGH).open == ["locked"]


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    """As /sys/module has one, which is loaded, and /lib/modules."""
    tmp_path.chmod(0o755)
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/a-b.ko.xz").write_bytes(lzma.compress(module()[0].file()))
    (tmp_path / "modules.dep").write_text("kernel/a-b.ko.xz: kernel/c.ko\nkernel/c.ko:\n")
    own = tmp_path / "a_b"
    (own / "notes").mkdir(parents=True)
    (own / "sections").mkdir()
    (own / "notes" / NOTES).write_bytes(module()[0].file()[module()[0].file().index(b"GNU\0") - 12 :][:24])
    (own / "sections/.text").write_text(f"{CODE:#x}\n")
    return tmp_path


def read(folder: Path, name: str = "a_b") -> dict[str, Any]:
    return module_reading.read(name, module_files(folder), THROUGH, folder)


def test_a_loaded_module_is_taken_for_its_file(loaded: Path) -> None:
    _, end = module()
    assert read(loaded) == {"code": [[CODE, 3 * LENGTH]], "legal": {"locked": [CODE + end]}, "open": []}


def test_what_is_not_its_file_is_not_believed(loaded: Path) -> None:
    assert read(loaded, "evil") == {"problem": "no file of this name is in modules.dep"}
    assert "cannot be read" in read(loaded, "c")["problem"]
    note = loaded / "a_b/notes" / NOTES
    note.write_bytes(note.read_bytes()[:-1] + b"\xff")
    assert "is another build" in read(loaded)["problem"]
    note.unlink()
    assert "No such file" in read(loaded)["problem"]
    (loaded / "kernel/a-b.ko.xz").chmod(0o666)
    assert "problem" in read(loaded)


def test_the_program_answers_of_each(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr(module_reading, "Path", lambda *_: loaded)
    monkeypatch.setattr(module_reading, "_LOADED", loaded)

    def answer() -> dict[str, Any]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"modules": ["a_b", "evil"], "through": THROUGH})))
        module_reading.main()
        return dict(json.loads(capsys.readouterr().out))

    assert {name: "legal" in each for name, each in answer().items()} == {"a_b": True, "evil": False}
    (loaded / "modules.dep").unlink()
    assert all("modules.dep" in each["problem"] for each in answer().values())


class Process:
    """Takes the place of what reads files."""

    asked: Sequence[str] = []
    found: dict[str, Any] | KernelError | None = None

    def __init__(self, _operation: str, _program: Sequence[str], question: Mapping[str, Any]) -> None:
        Process.asked, Process.found = question["modules"], None

    def answer(self) -> dict[str, Any] | None:
        if isinstance(Process.found, KernelError):
            raise Process.found
        return Process.found

    def stop(self) -> None: ...


class Legal(set[bytes]):
    def set(self, key: bytes, _value: bytes) -> None:
        self.add(key)


def calls(legal: Legal) -> ModuleCalls:
    return ModuleCalls(legal, {"locked": 3, "other": 4}, THROUGH, Process)  # type: ignore[arg-type]


def a_module(name: str = "good", address: int = CODE, state: str = "Live") -> Any:
    return SimpleNamespace(raw=name.encode(), name=name, address=address, state=state)


FOUND = {"code": [[CODE, 0x1000]], "legal": {"locked": [CODE + 5]}, "open": ["other"]}


def test_what_a_file_calls_is_legal_as_long_as_it_is_loaded() -> None:
    legal = Legal()
    watched = calls(legal)
    Process.asked = []
    watched.look([a_module(state="Loading")])
    assert Process.asked == []
    watched.look([a_module(), a_module("evil", CODE + 0x1000)])
    assert Process.asked == ["good", "evil"]
    watched.poll()
    assert (legal, watched.file(CODE + 9, "good", "locked")) == (set(), UNREAD)
    Process.found = {"good": FOUND, "evil": {"problem": "no file"}}
    watched.poll()
    assert legal == {Place(CODE + 5, 3).encode()}
    assert watched.file(CODE + 9, "good", "locked") == READ
    assert watched.file(CODE + 9, "good", "other") == UNREAD  # by a pointer, perhaps
    assert watched.file(CODE + 0x1009, "evil", "locked") == WITHOUT
    assert watched.file(CODE + 0x1009, "", "locked") == UNREAD
    Process.asked = []
    watched.look([a_module(), a_module("evil", CODE + 0x1000)])
    assert Process.asked == []  # each once
    watched.look([a_module(address=CODE + 0x2000)])
    assert (legal, Process.asked) == (set(), ["good"])
    assert watched.file(CODE + 9, "good", "locked") == UNREAD


def test_where_nothing_can_be_read_calls_are_told() -> None:
    watched = calls(legal := Legal())
    watched.look([a_module()])
    Process.found = KernelError("reading", 0, "no memory")
    watched.poll()
    assert (legal, watched.file(CODE, "good", "locked")) == (set(), WITHOUT)
    watched.stop()
