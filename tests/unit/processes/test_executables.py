"""Names for executables, by file."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from krie.events.identity import Identity
from krie.processes import executables
from krie.processes.executables import resolve

from ..kernel_side import identify


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_name_is_that_of_the_file_and_not_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    (tmp_path / "link").symlink_to("tool")
    before = open_files()
    found = resolve({"tool": str(tmp_path / "link")}, identify)
    status = (tmp_path / "tool").stat()
    assert found.names == {Identity(status.st_dev & 0xFFFFFFFF, status.st_ino, 0): "tool"}
    assert (found.unresolved, open_files()) == ({}, before + 1)
    found.close()
    assert open_files() == before


def test_of_two_names_of_one_file_the_first_stands_and_the_other_is_said(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    found = resolve({"first": str(tmp_path / "one"), "second": str(tmp_path / "two")}, identify)
    assert list(found.names.values()) == ["first"]
    assert found.unresolved == {"second": f"{tmp_path}/two is the same file as that of 'first'"}
    found.close()


def test_what_is_not_there_costs_no_other_name(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    found = resolve({"gone": str(tmp_path / "gone"), "tool": str(tmp_path / "tool")}, identify)
    assert list(found.names.values()) == ["tool"]
    assert found.unresolved == {"gone": f"{tmp_path}/gone: No such file or directory"}
    found.close()


def test_the_file_is_held_so_that_no_other_gets_its_number(tmp_path: Path) -> None:
    (tmp_path / "tool").touch()
    found = resolve({"tool": str(tmp_path / "tool")}, identify)
    (tmp_path / "tool").unlink()
    (held,) = found.descriptors
    assert identify(held) in found.names
    found.close()


def test_of_a_file_of_an_overlay_that_is_opened_which_is_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").write_text("x")
    monkeypatch.setattr(executables, "_is_overlaid", lambda _: True)
    found = resolve({"tool": str(tmp_path / "tool")}, identify)
    (held,) = found.descriptors
    assert os.read(held, 2) == b"x"
    found.close()


def test_what_covers_the_link_to_a_file_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").touch()
    links = tmp_path / "links"
    links.mkdir()
    for number in range(4096):  # more than this process has open, however many tests came before
        (links / str(number)).touch()
    monkeypatch.setattr(executables, "_is_overlaid", lambda _: True)
    shown = SimpleNamespace(descriptor=lambda flags: os.open(links, flags))
    monkeypatch.setattr(executables, "KernelFile", lambda _: shown)
    before = open_files()
    found = resolve({"tool": str(tmp_path / "tool")}, identify)
    assert found.unresolved == {"tool": f"{tmp_path}/tool: Invalid cross-device link"}
    assert open_files() == before
