"""What is given legally, though little tells so, is not taken for a gain by an exploit."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent

from ..overlays import mounted
from .acts import run
from .innocents import BY_THE_KERNEL, TRACED

pytestmark = pytest.mark.needs("guest", "kprobe")
SOMEBODY = 1001
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
Lacks = Callable[[str], NoReturn]


@pytest.fixture
def touch() -> Iterator[tuple[Path, Path]]:
    """A program that is set-uid to an ordinary user, and a folder in which it makes files."""
    with tempfile.TemporaryDirectory(prefix="innocents-", dir="/run") as made:
        top = Path(made)
        top.chmod(0o755)
        with mounted(top, "-t", "tmpfs", "none"):
            folder, program = top / "made", top / "touch"
            folder.mkdir()
            folder.chmod(0o777)
            shutil.copy("/usr/bin/touch", program)
            os.chown(program, SOMEBODY, SOMEBODY)
            program.chmod(0o4755)
            yield program, folder


@contextmanager
def cores_go_to(command: str) -> Iterator[None]:
    before = CORE_PATTERN.read_text()
    CORE_PATTERN.write_text(f"|{command}\n")
    try:
        yield
    finally:
        CORE_PATTERN.write_text(before)


def test_a_helper_that_is_set_uid_to_an_ordinary_user_runs_as_that_one(
    locked: RunningAgent, touch: tuple[Path, Path], rounds: int
) -> None:
    program, folder = touch
    before = len(locked.lines("cfi.caller"))
    with cores_go_to(f"{program} {folder}/%P"):
        assert run(BY_THE_KERNEL, folder, rounds) == f"{SOMEBODY} {rounds}\n"
    locked.settle()
    assert [each["event"] for each in locked.lines("cfi.caller")[before:]] == []


def test_a_tracer_of_who_has_rings_is_in_nobodys_way(
    locked: RunningAgent, touch: tuple[Path, Path], rounds: int, lacks: Lacks
) -> None:
    before = len(locked.lines("cfi.caller"))
    said = run(TRACED, *touch, rounds)
    if "77" in said:
        lacks("io_uring")
    assert said == f"[0] [0] [0]\n{SOMEBODY} {rounds}\n"
    locked.settle()
    assert [each["event"] for each in locked.lines("cfi.caller")[before:]] == []
