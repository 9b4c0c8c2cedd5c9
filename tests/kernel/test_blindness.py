"""What was not seen is no crime: credentials that changed legally while nothing saw it. In guests only."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.kernel.memory import open_memory
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.victims import Victims

pytestmark = [pytest.mark.needs("guest", "fentry", "fmod_ret")]
SWITCH = Path("/proc/sys/kernel/ftrace_enabled")
WORKERS = """
folder = sys.argv[1]
answers = os.pipe()
children = []

def worker(act):
    '''Forks one that changes its user and, when it is told so, writes.'''
    theirs, mine = os.pipe()
    if (child := os.fork()) == 0:
        os.close(mine)
        os.read(theirs, 1)
        act()
        os.write(answers[1], b".")
        os.read(theirs, 1)
        os.close(os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT))
        os._exit(0)
    os.close(theirs)
    children.append((child, mine))

def tell(which=None):
    for _, pipe in children if which is None else [children[which]]:
        os.write(pipe, b".")

def statuses():
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in children]

def become_nobody():
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""
WHILE_OFF = """
import errno
worker(become_nobody)
worker(lambda: os.setgroups([1, 2, 3]))
worker(lambda: libc.unshare(0x10000000))  # a user namespace
switch = os.open("/proc/sys/kernel/ftrace_enabled", os.O_WRONLY)
try:
    os.pwrite(switch, b"0", 0)
except OSError as error:
    print("refused", errno.errorcode[error.errno])
    for child, _ in children:
        os.kill(child, 9)
    raise SystemExit
try:
    tell()
    for _ in children:
        os.read(answers[0], 1)
finally:
    os.pwrite(switch, b"1", 0)
tell()
print("went on", *statuses())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where anybody may write."""
    tmp_path.chmod(0o777)
    for each in tmp_path.parents:
        with contextlib.suppress(OSError):
            each.chmod(each.stat().st_mode | 0o111)
    return tmp_path


def test_nobody_is_told_for_what_happened_while_ftrace_was_off(
    observer: RunningAgent, victims: Victims, folder: Path, lacks: Callable[[str], NoReturn]
) -> None:
    for _ in range(3):
        said = victims.run(WORKERS + WHILE_OFF, str(folder)).stdout.split()
        assert SWITCH.read_text() == "1\n"
        if said[0] == "refused":
            lacks(f"ftrace_switch: this kernel does not let it be switched off while it is used: {said[1]}")
        assert said == ["went", "on", "0", "0", "0"]
    observer.settle()
    assert observer.lines("runtime_integrity.cred_tamper", victims.mine) == []


WHILE_NOBODY_IS_CALLED = """
worker(become_nobody)
worker(lambda: os.setgroups([1, 2, 3]))
tell()
for _ in children:
    os.read(answers[0], 1)
tell()
print("went on", *statuses())
"""
NOTHING, ENDBR_BYTES = "0f1f440000", 4


@pytest.mark.needs("test_module")
def test_nobody_is_told_for_what_happened_while_a_program_was_not_called(
    observer: RunningAgent, victims: Victims, folder: Path, test_module: TestModule
) -> None:
    """Its canary is silent then, which is known half a minute later."""
    function = address_of("commit_creds")
    with contextlib.ExitStack() as stack:
        memory, _ = open_memory(stack)
        (call,) = (each for each in (function, function + ENDBR_BYTES) if memory.read(each, 1) == b"\xe8")
    with test_module.effect("write", call, NOTHING):
        said = victims.run(WORKERS + WHILE_NOBODY_IS_CALLED, str(folder)).stdout.split()
    assert said == ["went", "on", "0", "0"]
    observer.settle()
    assert observer.lines("runtime_integrity.cred_tamper", victims.mine) == []
