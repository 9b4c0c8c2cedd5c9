"""Executables by file: what an overlayfs makes of that."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.executables import resolve
from krie.process import Identity

pytestmark = pytest.mark.once


@pytest.fixture
def overlay(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    if "overlay" not in Path("/proc/filesystems").read_text():
        lacks("overlayfs: /proc/filesystems does not list it")
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for each in (lower, upper, work, merged):
        each.mkdir()
    (lower / "tool").touch()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    yield merged
    subprocess.run(["umount", merged], check=True)


def identify(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return Identity(status.st_dev, status.st_ino, 0)


def test_files_on_an_overlayfs_are_told(overlay: Path, tmp_path: Path) -> None:
    found = resolve({"on": str(overlay / "tool"), "under": str(tmp_path / "lower/tool")}, identify)
    found.close()
    assert found.overlaid == ("on",)
    assert not found.unresolved
