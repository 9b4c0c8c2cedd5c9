"""What programs do every day about rights, of their own and of others, is checked and never told."""

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent

from ..overlays import mounted, overlaid
from . import flows
from .acts import AS_NOBODY, run

pytestmark = pytest.mark.needs("guest", "kprobe")
USERS = {"root": (), "nobody": AS_NOBODY}
SOMEBODY = 1
SETUID, SETGID = 1 << 7, 1 << 6
"""Capabilities."""
Lacks = Callable[[str], NoReturn]
SHELL = {
    "root": """
su -s /bin/sh nobody -c id
setpriv --reuid=65534 --regid=65534 --init-groups id
setpriv --reuid=65534 --clear-groups --inh-caps=+net_raw --ambient-caps=+net_raw sh -c true
setpriv --bounding-set=-sys_admin --no-new-privs sh -c true
unshare --mount --uts --ipc --net --pid --fork true
unshare --user --map-root-user --net --pid --fork --mount-proc true
""",
    "nobody": """
setpriv --no-new-privs sh -c true
unshare --user --map-root-user --mount --net true
unshare --user --map-root-user setpriv --bounding-set=-sys_admin --inh-caps=-all sh -c true
unshare --user --map-root-user unshare --user --map-root-user --pid --fork true
""",
}


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """The programs that flows.py names, and an overlay of them."""
    with tempfile.TemporaryDirectory(prefix="flows-", dir="/run") as made:
        top = Path(made)
        top.chmod(0o755)
        source = Path(__file__).with_name("flow.c")
        with mounted(top, "-t", "tmpfs", "-o", "mode=755", "none"):
            below = top / "below"
            below.mkdir()
            subprocess.run(["gcc", "-O1", "-o", below / "root", source], check=True)
            for name, owner in (("somebody", SOMEBODY), ("capable", 0)):
                shutil.copy(below / "root", below / name)
                os.chown(below / name, owner, owner)
            (below / "root").chmod(0o4755)
            (below / "somebody").chmod(0o4755)
            capabilities = struct.pack("<5I", 0x02000001, SETUID | SETGID, 0, 0, 0)  # revision 2, effective
            os.setxattr(below / "capable", "security.capability", capabilities)
            with overlaid(top, "below", "merged"):
                yield top


@contextmanager
def silent(agent: RunningAgent) -> Iterator[None]:
    """Locked functions are called, and nothing that matters is told."""
    before, checks = len(agent.all_lines()), _checks(agent)
    yield
    agent.settle()
    lines = agent.all_lines()[before:]
    loud = [
        each
        for each in lines
        if {"high", "critical"} & {rule["severity"] for rule in (each.get("decision") or {}).get("rules", ())}
    ]
    assert loud == []
    assert [each for each in lines if each["kind"] in ("cfi.caller", "cfi.act")] == []
    agent.wait("cfi.activity", lambda _: _checks(agent) > checks)


def _checks(agent: RunningAgent) -> int:
    return sum(line["event"]["checks"] for line in agent.lines("cfi.activity"))


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("flow", ["PROGRAMS", "KEYS", "NAMESPACES", "ENTERED", "MAPPED_BY_A_PROGRAM"])
def test_flows_are_silent(locked: RunningAgent, programs: Path, flow: str, user: str) -> None:
    folder = programs if flow == "PROGRAMS" else programs / "below"
    with silent(locked):
        run(getattr(flows, flow), folder, by=USERS[user])


@pytest.mark.parametrize("user", USERS)
def test_commands_are_silent(locked: RunningAgent, user: str) -> None:
    with silent(locked):
        subprocess.run([*USERS[user], "sh", "-e", "-c", SHELL[user]], stdout=subprocess.DEVNULL, check=True)


def test_a_ring_that_opens_files_as_its_maker_is_silent(locked: RunningAgent, programs: Path, lacks: Lacks) -> None:
    file = programs / "secret"
    file.touch()
    file.chmod(0o600)
    with silent(locked):
        said = run(flows.PERSONALITIES, file).split()
    if said[0] == "none":
        lacks(f"io_uring: {' '.join(said[1:])}")
    assert said == ["done", "done"]
