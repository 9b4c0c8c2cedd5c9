"""Bugs in what the kernel asks for rights, used as public exploits do: refused at the act.

The lab's kernels have been mended, so the test module leaves out the check that mended each; all else is the kernel's.
"""

import json
import os
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule

from ..overlays import mounted
from . import acts, bugs, fuse

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
ACT = "cfi.act"
REVISION_2 = 2
Lacks = Callable[[str], NoReturn]


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    code: str
    act: str
    mended: str
    """What the kernel says where the check is made; empty: what is written then means less."""
    gained: Callable[[Path], bool]
    """Whether a file has what the exploit is for."""
    lower: Callable[[Path], AbstractContextManager[None]]
    """What lies below the overlay."""


def has_every_capability(path: Path) -> bool:
    written = os.getxattr(path, "security.capability")
    return struct.unpack_from("<2I", written) == (REVISION_2 << 24 | 1, 0xFFFFFFFF)


def is_setuid_root(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == 0 and bool(status.st_mode & stat.S_ISUID)


BUGS = (
    Bug(
        "CVE-2021-3493",
        bugs.CAPABILITY_BY_OVERLAY,
        "file_capability",
        "",
        has_every_capability,
        lambda _: nullcontext(),
    ),
    Bug(
        "CVE-2023-0386",
        bugs.SETUID_BY_COPY_UP,
        "setuid_root",
        "EOVERFLOW",
        is_setuid_root,
        lambda folder: fuse.served(folder, owner=0),
    ),
)
each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda each: each.name)


@pytest.fixture
def place(lacks: Lacks) -> Iterator[tuple[Path, Path]]:
    """A folder of nobody's on a tmpfs, and one for what lies below an overlay."""
    with tempfile.TemporaryDirectory(prefix="bugs-", dir="/run", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        folder, lower = Path(made) / "folder", Path(made) / "lower"
        folder.mkdir()
        lower.mkdir()
        with mounted(folder, "-t", "tmpfs", "none"):
            os.chown(folder, acts.NOBODY, acts.NOBODY)
            if subprocess.run(bugs.OVERLAY_OF_ONES_OWN, cwd=folder, check=False).returncode:
                lacks("user_overlays: this kernel mounts none in user namespaces")  # 459c7c565ac3 (5.11)
            yield folder, lower


def exploit(bug: Bug, rounds: int, place: tuple[Path, Path], name: str) -> dict[str, int]:
    folder, lower = place
    with bug.lower(lower):
        answers: dict[str, int] = json.loads(acts.run(bug.code, rounds, folder, name, lower))
    return answers


@each_bug
def test_the_exploit_works_where_nobody_is_in_its_way(
    test_module: TestModule, place: tuple[Path, Path], bug: Bug
) -> None:
    """Else what is refused below may be something else."""
    assert exploit(bug, 1, place, bug.name) == {"done": 1}
    assert bug.gained(place[0] / "upper/0")


@each_bug
def test_a_kernel_without_the_bug_gives_nothing(test_module: TestModule, place: tuple[Path, Path], bug: Bug) -> None:
    assert exploit(bug, 1, place, "") == {bug.mended or "done": 1}
    assert bug.mended or not bug.gained(place[0] / "upper/0")


@each_bug
@pytest.mark.needs("fmod_ret")
def test_it_is_refused_at_the_act(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path], bug: Bug, rounds: int
) -> None:
    before = len(locked.lines(ACT))
    assert exploit(bug, rounds, place, bug.name) == {"EPERM": rounds}
    lines = locked.wait(ACT, count=before + rounds)[before:]
    assert [each["event"]["act"] for each in lines] == [bug.act] * rounds
    for line in lines:
        assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["CFI005"], ["refused"])
    assert not [each for each in (place[0] / "upper").glob("*") if bug.act == "setuid_root" and is_setuid_root(each)]


@each_bug
@pytest.mark.needs("fmod_ret")
def test_a_kernel_without_the_bug_is_told_of_nothing(
    locked: RunningAgent, test_module: TestModule, place: tuple[Path, Path], bug: Bug
) -> None:
    before = len(locked.lines(ACT))
    exploit(bug, 1, place, "")
    locked.settle()
    assert [each["event"] for each in locked.lines(ACT)[before:]] == []
