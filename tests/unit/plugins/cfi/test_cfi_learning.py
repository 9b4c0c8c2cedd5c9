"""Callers by a pointer that are learnt from journals."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from krie import ConfigError
from krie.plugins.cfi import commands, lock_file
from krie.plugins.cfi.derived import derive, filed, named_by
from krie.plugins.cfi.learning import learn, seen_in
from krie.plugins.cfi.lock_file import LockFile, lock_file_of

from .calling import BUILD, by_pointer, declared

PLACE = "pointer+0x12"  # behind a call by a pointer


def journal(folder: Path, *events: dict[str, str], kind: str = "cfi.caller") -> Path:
    usual = {
        "function": "locked",
        "lock": "caller",
        "owner": "kernel",
        "return_symbol": PLACE,
        "return_module": "",
    }
    place = folder / "journal.jsonl"
    place.write_text("".join(json.dumps({"kind": kind, "event": {**usual, **each}}) + "\n" for each in events))
    return place


def lock() -> LockFile:
    _, code = by_pointer()
    return lock_file_of("6.1", BUILD, code, code.callers(["locked"], {}))


def test_what_is_behind_a_call_by_a_pointer_is_learnt_once(tmp_path: Path) -> None:
    _, code = by_pointer()
    seen = seen_in([journal(tmp_path, {}, {})])
    found = learn(lock(), code, seen)
    assert (found.added, found.refused) == ([f"locked <- {PLACE}"], [])
    assert found.lock.functions["locked"].open == [PLACE]
    assert found.lock.derived() == lock()
    assert lock_file.differences(lock(), found.lock) == [f"+ locked <- {PLACE}, as was learnt"]
    again = learn(found.lock, code, seen)
    assert (again.lock, again.added) == (found.lock, [])


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"function": "other"}, "does not have this function"),
        ({"return_symbol": "pointer+0x13"}, "not behind a call by a pointer"),
        ({"return_symbol": "caller+0x15"}, "not behind a call by a pointer"),
        ({"return_symbol": ""}, "not behind a call by a pointer"),
        ({"owner": "module", "return_module": "evil"}, r"not learnt \(evil\)"),
        ({"owner": "other"}, r"not learnt \(other\)"),
    ],
)
def test_nothing_else_is_believed(event: dict[str, str], reason: str, tmp_path: Path) -> None:
    _, code = by_pointer()
    found = learn(lock(), code, seen_in([journal(tmp_path, event)]))
    assert (found.lock, found.added, len(found.refused)) == (lock(), [], 1)
    assert re.search(reason, found.refused[0])


def test_who_has_no_callers_by_pointer_learns_none(tmp_path: Path) -> None:
    _, code = by_pointer()
    functions = {"locked": lock().functions["locked"].model_copy(update={"taken": []})}
    found = learn(lock().model_copy(update={"functions": functions}), code, seen_in([journal(tmp_path, {})]))
    assert found.refused == [
        f"locked <- {PLACE}: nothing takes this function's address, so nobody calls it by a pointer"
    ]


@pytest.mark.parametrize(("event", "kind"), [({"lock": "path"}, "cfi.caller"), ({}, "other.caller")])
def test_other_lines_teach_nothing(event: dict[str, str], kind: str, tmp_path: Path) -> None:
    assert seen_in([journal(tmp_path, event, kind=kind)]) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not a journal"),
        (b"\xff", "is not a journal"),
        (b"[]", ":1 is not a line of a journal"),
        (b'{"kind": "cfi.caller", "event": {"function": 1}}', ":1 is not an event cfi.caller"),
    ],
)
def test_what_is_no_journal_is_told(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        seen_in([tmp_path / "file"])
    assert problem in str(caught.value).replace(": is", " is")
    with pytest.raises(ConfigError, match="cannot be read"):
        seen_in([tmp_path / "nothing"])


def test_what_was_learnt_is_legal_and_makes_nothing_certain() -> None:
    text, code = by_pointer()
    learnt = learn(lock(), code, {"locked": {PLACE: "kernel"}}).lock
    place = text.at["pointer"] + 0x12
    found = derive(code, declared(), learnt)
    assert (place in found.legal["locked"], found.certain, found.differences) == (True, [], [])
    assert "pointer" in named_by(learnt, declared())
    known = {name: range(start, start + 256) for name, start in text.at.items()}
    there = filed(learnt, declared(), known, lambda *_: b"")
    assert (place in there.legal["locked"], there.certain) == (True, [])
    assert place not in filed(lock(), declared(), known, lambda *_: b"").legal["locked"]


def test_the_command_renews_a_file_and_keeps_what_it_knew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, code = by_pointer()
    kernel = SimpleNamespace(release="6.1", build_id=BUILD, code=code)
    monkeypatch.setattr(commands, "kernel_in", lambda _: kernel)
    monkeypatch.setattr(commands, "shipped", declared)
    (tmp_path / "vmlinux").touch()
    line = ["learn", "--vmlinux", str(tmp_path / "vmlinux"), "--output", str(tmp_path)]
    first = CliRunner().invoke(commands.cfi, [*line, str(journal(tmp_path, {}))])
    assert first.exit_code == 0, first.output
    assert f"+ locked <- {PLACE}" in first.output
    made = lock_file.read(tmp_path / f"{BUILD}.json")
    assert made.functions["locked"].open == [PLACE]
    second = CliRunner().invoke(commands.cfi, [*line, str(journal(tmp_path, {"return_symbol": "caller+0x15"}))])
    assert second.exit_code == 0
    assert lock_file.read(tmp_path / f"{BUILD}.json") == made
