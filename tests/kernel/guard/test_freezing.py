"""An agent that guards itself is moved to another cgroup, but not stopped there; a freeze is told. In guests only."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
from krie.kernel.mounts import mounted
from krie.testing.agent import Line, RunningAgent
from krie.testing.patience import wait_for

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
RULED = Path("/proc/sys/kernel/kptr_restrict")
"""A kernel-tier rule of the shipped policy refuses to lower it."""


@contextmanager
def cgroup(name: str, lacks: Callable[[str], NoReturn]) -> Iterator[Path]:
    root = next((each.point for each in mounted("cgroup2") if each.root == "/"), None)
    if root is None:
        lacks("cgroup2: it is not mounted")
    made = root / name
    made.mkdir()
    try:
        yield made
    finally:
        wait_for(lambda: _emptied(made, root))
        made.rmdir()


def _emptied(group: Path, root: Path) -> bool:
    """Move who is in there; False where there was somebody: what a process starts or ends meanwhile shows later."""
    inside = (group / "cgroup.procs").read_text().split()
    for each in inside:
        with suppress(ProcessLookupError):  # it has ended since
            (root / "cgroup.procs").write_text(each)
    return not inside


def test_its_cgroup_stays_as_it_is(guarding: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    """Nothing refuses to move it. Where it comes to is guarded from that moment on."""
    with cgroup("krie-moved", lacks) as group:
        os.close(os.open(group / "cgroup.freeze", os.O_WRONLY))
        (group / "cgroup.procs").write_text(f"{guarding.process.pid}\n")
        harmful = [each for each in ("cgroup.freeze", "cgroup.kill") if (group / each).exists()]
        for name in harmful:
            with pytest.raises(PermissionError):
                os.open(group / name, os.O_WRONLY)
        os.close(os.open(group / "cgroup.procs", os.O_WRONLY))
        attempts(guarding, "agent_moved")
        attempts(guarding, "cgroup_written", len(harmful))


def lowered() -> int:
    """0, or the error of lowering what a rule of the kernel tier guards."""
    descriptor = os.open(RULED, os.O_WRONLY)
    try:
        os.write(descriptor, b"0")
        return 0
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(descriptor)


def test_a_freeze_is_told_when_it_ends_and_the_kernel_decides_meanwhile(
    guarding: RunningAgent, lacks: Callable[[str], NoReturn]
) -> None:
    with cgroup("krie-frozen", lacks) as group:
        freeze = os.open(group / "cgroup.freeze", os.O_WRONLY)  # before the agent is there
        (group / "cgroup.procs").write_text(f"{guarding.process.pid}\n")
        attempts(guarding, "agent_moved", 2)
        RULED.write_text("1")
        os.write(freeze, b"1")
        try:
            time.sleep(5)
            assert lowered() == errno.EPERM
            assert RULED.read_text() == "1\n"
        finally:
            os.write(freeze, b"0")
            os.close(freeze)
        (gap,) = guarding.wait("krie.gap", lambda line: line["event"]["state"] == "frozen")
        assert gap["event"]["gap_s"] >= 4
        assert gap["event"]["tgid_before"] == guarding.process.pid
        attempts(guarding, "agent_frozen")


def test_nor_is_it_frozen_by_the_older_kind_of_cgroups(
    guarding: RunningAgent, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    """As long as it is in there; a descriptor from before that serves, and what it does is told."""
    if subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "none", tmp_path], check=False).returncode:
        lacks("cgroup_freezer: of the first version")
    moves, gaps = len(guarding.lines("krie.guarded", is_move)), len(guarding.lines("krie.gap", is_freeze))
    written = sum(line["event"]["count"] for line in guarding.lines("krie.guarded", is_write))
    above = tmp_path / "krie"
    group, agent = above / "below", f"{guarding.process.pid}\n"
    group.mkdir(parents=True)
    freeze = os.open(group / "freezer.state", os.O_WRONLY)
    (group / "cgroup.procs").write_text(agent)
    time.sleep(2.5)  # what was seen when it came is forgotten by then
    RULED.write_text("1")
    try:
        for folder in (group, above):
            with pytest.raises(PermissionError):
                os.open(folder / "freezer.state", os.O_WRONLY)
        os.close(os.open(tmp_path / "notify_on_release", os.O_WRONLY))  # of the root, which harms nobody
        attempts(guarding, "cgroup_written", written + 2)
        os.write(freeze, b"FROZEN")
        time.sleep(5)
        assert lowered() == errno.EPERM
    finally:
        os.write(freeze, b"THAWED")
        os.close(freeze)
        (tmp_path / "cgroup.procs").write_text(agent)
        group.rmdir()
        above.rmdir()
        subprocess.run(["umount", tmp_path], check=True)
    assert guarding.wait("krie.gap", is_freeze, count=gaps + 1)[-1]["event"]["gap_s"] >= 4
    assert guarding.wait("krie.guarded", is_move, count=moves + 1)[-1]["event"]["stranger_tgid"] == os.getpid()


def is_write(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "cgroup_written")


def is_move(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "agent_moved")


def is_freeze(line: Line) -> bool:
    return bool(line["event"]["state"] == "frozen")
