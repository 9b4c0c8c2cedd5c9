"""What others change of the agent's process is put right, and work that fails does not end it."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from krie.agent.endurance import Endurance, Failing
from krie.enforce.resources import Resources, _online, _worse
from krie.errors import KernelError
from krie.events.enforcement import LIMITS, OOM_SCORE

INFINITY = resource.RLIM_INFINITY


class Limits:
    """Of a process that others may change."""

    def __init__(self) -> None:
        self.values: dict[int, tuple[int, int]] = {}
        self.refuses = False

    def get(self, kind: int) -> tuple[int, int]:
        return self.values.get(kind, (1024, INFINITY))

    def set(self, kind: int, limits: tuple[int, int]) -> None:
        if self.refuses and limits[1] != self.get(kind)[1]:
            raise ValueError("not allowed to raise maximum limit")
        self.values[kind] = limits


@pytest.fixture
def oom(tmp_path: Path) -> Path:
    (tmp_path / "oom_score_adj").write_text("-900\n")
    return tmp_path / "oom_score_adj"


@pytest.mark.parametrize("lower", [(3, 4096), (3, INFINITY), (1024, 1024)])
def test_a_lowered_limit_is_raised_again(oom: Path, lower: tuple[int, int]) -> None:
    limits = Limits()
    resources = Resources(limits.get, limits.set, oom)
    assert list(resources.look()) == []
    limits.values[resource.RLIMIT_NOFILE] = lower
    assert list(resources.look()) == [LIMITS]
    assert limits.get(resource.RLIMIT_NOFILE) == (1024, INFINITY)
    assert list(resources.look()) == []


def test_a_raised_limit_is_kept(oom: Path) -> None:
    limits = Limits()
    resources = Resources(limits.get, limits.set, oom)
    limits.values[resource.RLIMIT_MEMLOCK] = (INFINITY, INFINITY)
    assert list(resources.look()) == []
    limits.values[resource.RLIMIT_MEMLOCK] = (64, 64)
    assert list(resources.look()) == [LIMITS]
    assert limits.get(resource.RLIMIT_MEMLOCK) == (INFINITY, INFINITY)


def test_a_limit_that_cannot_be_raised_is_told_once(oom: Path) -> None:
    limits = Limits()
    resources = Resources(limits.get, limits.set, oom)
    limits.values[resource.RLIMIT_NOFILE], limits.refuses = (3, 512), True
    assert list(resources.look()) == [LIMITS]
    assert limits.get(resource.RLIMIT_NOFILE) == (512, 512)  # as far as we may
    assert list(resources.look()) == []


def test_the_oom_killer_is_not_sent_to_us(oom: Path) -> None:
    limits = Limits()
    resources = Resources(limits.get, limits.set, oom)
    oom.write_text("1000\n")
    assert list(resources.look()) == [OOM_SCORE]
    assert oom.read_text() == "-900\n"
    oom.write_text("-1000\n")
    assert list(resources.look()) == []
    oom.unlink()
    assert list(resources.look()) == []


@pytest.mark.parametrize(
    ("now", "online", "worse"),
    [
        ((0, 0, 0, {0, 1}), {0, 1, 2}, True),
        ((0, 0, 0, {0, 1}), {0, 1}, False),  # the third one was switched off
        ((0, 0, 5, {0, 1, 2}), {0, 1, 2}, True),
        ((5, 0, 0, {0, 1, 2}), {0, 1, 2}, True),
        ((0, 0, -5, {0, 1, 2, 3}), {0, 1, 2, 3}, False),
    ],
)
def test_what_is_worse_for_us(now: tuple[int, int, int, set[int]], online: set[int], worse: bool) -> None:
    here = (*now[:3], frozenset(now[3]))
    assert _worse(here, (0, 0, 0, frozenset({0, 1, 2})), frozenset(online)) is worse


def test_the_cpus_that_are_online() -> None:
    assert _online() >= os.sched_getaffinity(0)


REAL = """
import os, resource
from krie.enforce.resources import Resources
os.setpriority(os.PRIO_PROCESS, 0, 0)  # which can fall, whatever the tests are run with
resources = Resources()
assert list(resources.look()) == []
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
os.setpriority(os.PRIO_PROCESS, 0, 5)
print(*resources.look(), *resources.look())
"""


def test_of_a_real_process() -> None:
    """In one of its own: what is put right needs rights, and what cannot be is told once."""
    limit = resource.getrlimit(resource.RLIMIT_CORE)[0]
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*(["limits_lowered"] if limit else []), "priority_lowered"]


def refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_work_that_fails_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    endurance = Endurance()
    for _ in range(3):
        endurance.run("control", lambda: refuse(errno.EMFILE))
    endurance.run("scan", list)
    emfile = f"[Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"
    assert list(endurance.look()) == [Failing("control", emfile, 3)]
    assert list(endurance.look()) == []
    assert len(caplog.records) == 1
    endurance.run("control", list)
    endurance.run("control", lambda: refuse(errno.EMFILE))
    assert len(caplog.records) == 2  # it had worked meanwhile


@pytest.mark.parametrize("error", [KernelError("x", errno.EPERM), MemoryError(), OSError(errno.ENFILE, "x")])
def test_what_the_kernel_refuses_ends_nothing(error: Exception) -> None:
    endurance = Endurance()

    def work() -> None:
        raise error

    endurance.run("look", work)
    assert [each.work for each in endurance.look()] == ["look"]


def test_a_bug_is_none_of_its_business() -> None:
    with pytest.raises(ZeroDivisionError):
        Endurance().run("look", lambda: 1 / 0)
