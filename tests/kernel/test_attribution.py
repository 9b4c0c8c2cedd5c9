"""Who did what to whom: namespaces are the process's own, users of containers are not compared by number, and who reads
what the kernel shows of a process takes no control of it."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .enforcing import copied_python
from .user_namespaces import CONTAINED

UNSHARED = """
before = os.stat("/proc/self/ns/pid").st_ino
assert libc.unshare(0x20000000) == 0  # CLONE_NEWPID: for children to come
libc.syscall(101, 0, 0, 0, 0)  # PTRACE_TRACEME
print(before)
"""


def test_a_process_is_where_it_lives_not_where_its_children_will(journal: JournalOfVictims, victims: Victims) -> None:
    own = os.stat("/proc/self/ns/pid").st_ino
    assert int(victims.run(UNSHARED).stdout) == own
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert line["process"]["namespaces"]["pid"] == own
    assert line["process"]["container"] is False


INSIDE = """
print(os.stat("/proc/self/ns/pid").st_ino, end=" ", flush=True)
assert libc.unshare(0x20000000) == 0
child = os.fork()
if child == 0:
    libc.syscall(101, 0, 0, 0, 0)
    os._exit(0)
print(os.stat(f"/proc/{child}/ns/pid").st_ino)
os.waitpid(child, 0)
"""


def test_a_process_in_a_namespace_of_its_own_is_there(journal: JournalOfVictims, victims: Victims) -> None:
    outside, inside = map(int, victims.run(INSIDE).stdout.split())
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert line["process"]["namespaces"]["pid"] == inside != outside
    assert line["process"]["container"] is True


DEEP = """
code = "import ctypes, time; ctypes.CDLL(None).ptrace(0, 0, 0, 0); time.sleep(5)"  # PTRACE_TRACEME
os.execve(sys.argv[1], ["deep", "-S", "-c", code], {"PYTHONHOME": sys.argv[2]})
"""


def test_an_executable_that_lies_deep_is_known(journal: JournalOfVictims, victims: Victims, tmp_path: Path) -> None:
    """The kernel's record of an exec has 24 components of its path."""
    folder = tmp_path.joinpath(*["below"] * 30)
    folder.mkdir(parents=True)
    python = copied_python(folder)
    victims.run(DEEP, str(python), sys.base_prefix)
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert (line["process"]["exe"], line["process"]["exe_known"]) == (str(python), True)


CONTAINER = (
    CONTAINED
    + """
import json, signal, sys
ready, tell = os.pipe()
maker, users, target_id, apart = json.loads(sys.argv[1])

def as_maker():
    os.setgroups([])
    os.setgid(maker)
    os.setuid(maker)

def sleeper():
    target = os.fork()
    if target == 0:
        os.setgid(target_id)
        os.setuid(target_id)
        libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
        os.write(tell, b"s")
        signal.pause()
    os.read(ready, 1)
    return target

def seize():
    os.setgid(0)
    os.setuid(0)
    target = outside or sleeper()
    answer = libc.ptrace(0x4206, target, 0, 0)  # PTRACE_SEIZE
    print(os.getpid(), target, answer, flush=True)
    os.kill(target, signal.SIGKILL) if not apart else None

outside = sleeper() if apart else 0
try:
    container = Contained(seize, users, as_maker)
    if container.made:
        container.go()
    else:
        print("none")
finally:
    os.kill(outside, signal.SIGKILL) if outside else None
"""
)


@pytest.mark.parametrize(
    ("maker", "users", "apart", "other_user"),
    [
        pytest.param(1000, "0 1000 1\n1 100000 65536\n", False, False, id="made by its root"),
        pytest.param(0, "0 100000 65536\n", False, False, id="made by root for others"),
        pytest.param(1000, "0 1000 1\n1 100000 65536\n", True, True, id="out of the container"),
    ],
)
def test_users_of_a_container_are_its_makers(
    agent: RunningAgent,
    journal: JournalOfVictims,
    victims: Victims,
    lacks: Callable[[str], NoReturn],
    maker: int,
    users: str,
    apart: bool,
    other_user: bool,
) -> None:
    said = victims.run(CONTAINER, json.dumps([maker, users, 33, apart])).stdout.split()
    if said == ["none"]:
        lacks("user_namespaces: a user cannot make one")
    tracer, target, answer = map(int, said)
    assert (answer == 0) is not apart  # the kernel's own answer
    probes = [line["event"] for line in agent.lines("krie.probe") if line["event"]["probe"] == "ptrace"]
    if apart and probes[-1]["alternative"] != "syscall":
        journal.none("runtime_integrity.ptrace")  # whoever may not by his user number gets no further
        return
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    event = line["event"]
    assert (line["process"]["tgid"], event["target_tgid"], event["target_known"]) == (tracer, target, True)
    assert event["target_uid"] not in (0, maker)
    assert event["other_user"] is other_user
    assert [each["id"] for each in line["decision"]["rules"]] == (["PTRACE001"] if other_user else [])


def test_who_reads_what_the_kernel_shows_takes_no_control(agent: RunningAgent, victims: Victims) -> None:
    """Of tgid 1 too: the kernel asks for the right to attach, and monitoring tools read these."""
    code = """
import contextlib
for name in ("stack", "syscall", "personality"):
    with contextlib.suppress(OSError):
        file = os.open(f"/proc/1/{name}", os.O_RDONLY)
        os.read(file, 4096)
        os.pread(file, 4096, 0)
        os.lseek(file, 0, 0)
        os.readv(file, [bytearray(9)])
libc.syscall(101, 0, 0, 0, 0)  # PTRACE_TRACEME, which is seen
"""
    victims.run(code)
    agent.wait("runtime_integrity.ptrace", victims.mine)
    agent.settle()
    assert [each["event"]["operation"] for each in agent.lines("runtime_integrity.ptrace", victims.mine)] == ["traceme"]


MEMORY = """
import time
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
how, number = sys.argv[1], getattr(os, sys.argv[2])
path = f"/proc/{child}/mem"
if how == "openat2":
    made = libc.syscall(437, -100, path.encode(), (ctypes.c_ulong * 3)(number, 0, 0), 24)
elif how == "open":
    made = libc.syscall(2, path.encode(), number)
else:
    made = os.open(path, number)
assert made >= 0
os.kill(child, 9)
os.waitpid(child, 0)
print(child)
"""


@pytest.mark.needs("kprobe")
@pytest.mark.parametrize(
    ("how", "flags", "operation"),
    [
        ("openat", "O_RDONLY", "procfs_read"),
        ("open", "O_RDONLY", "procfs_read"),
        ("openat", "O_RDWR", "procfs"),
        ("open", "O_WRONLY", "procfs"),
        ("openat2", "O_RDONLY", "procfs"),  # its flags are in the caller's memory: it could be anything
    ],
)
def test_memory_opened_to_read_is_told_from_memory_opened_to_write(
    journal: JournalOfVictims, victims: Victims, how: str, flags: str, operation: str
) -> None:
    target = int(victims.run(MEMORY, how, flags).stdout)
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert (line["event"]["operation"], line["event"]["target_tgid"]) == (operation, target)
