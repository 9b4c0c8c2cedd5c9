"""CVE-2022-0492, used as public exploits do: a container has the kernel run its program as root, outside.

The lab's kernels have been mended, so the test module sees to it that the check is passed; all else is the kernel's.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule

from ..overlays import mounted
from . import bugs
from .acts import run

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
ACT = "cfi.act"
BUG = "CVE-2022-0492"
HIERARCHY = "none,name=krie-release"
PATIENCE_S = 90


@dataclass(frozen=True, slots=True)
class Place:
    inside: Path
    """Where the container mounts what the machine has mounted."""
    agent: Path
    hierarchy: Path
    program: Path
    ran: Path
    """What the program makes."""

    def exploit(self, rounds: int, bug: str) -> dict[str, int]:
        said = run(bugs.RELEASE_AGENT, rounds, self.inside, bug, HIERARCHY, self.program)
        answers: dict[str, int] = json.loads(said)
        return answers


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="release-", dir="/run", ignore_cleanup_errors=True) as made:
        top = Path(made)
        top.chmod(0o755)
        hierarchy, inside, program, ran = (top / name for name in ("hierarchy", "inside", "program", "ran"))
        with mounted(top, "-t", "tmpfs", "-o", "mode=755", "none"):
            hierarchy.mkdir()
            inside.mkdir()
            program.write_text(f"#!/bin/sh\n: > {ran}\n")
            program.chmod(0o755)
            with mounted(hierarchy, "-t", "cgroup", "-o", HIERARCHY, "none"):
                yield Place(inside, hierarchy / "release_agent", hierarchy, program, ran)
                if (left := hierarchy / "emptied").exists():
                    left.rmdir()


def test_the_exploit_works_where_nobody_is_in_its_way(test_module: TestModule, place: Place) -> None:
    """Else what is refused below may be something else."""
    assert place.exploit(1, BUG) == {"done": 1}
    end = time.monotonic() + PATIENCE_S
    while not place.ran.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_kernel_without_the_bug_gives_nothing(test_module: TestModule, place: Place) -> None:
    assert place.exploit(1, "") == {"EPERM": 1}
    assert place.agent.read_text() == "\n"


@pytest.mark.needs("fmod_ret")
@pytest.mark.parametrize("attacks", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_it_is_refused_at_the_act(locked: RunningAgent, test_module: TestModule, place: Place, attacks: int) -> None:
    before = len(locked.lines(ACT))
    assert place.exploit(attacks, BUG) == {"EPERM": attacks}
    assert place.agent.read_text() == "\n"
    lines = locked.wait(ACT, count=before + attacks)[before:]
    assert [each["event"]["act"] for each in lines] == ["release_agent"] * attacks
    for line in lines:
        assert ([each["id"] for each in line["decision"]["rules"]], line["done"]) == (["CFI005"], ["refused"])
        assert (line["event"]["foreign"], line["event"]["name"]) == (True, "release_agent")
