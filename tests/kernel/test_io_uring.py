"""Who has rings of io_uring does what they ask for on its way out of any system call, or by workers that bear that
call's number: neither passes for the call."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .rings import RING

OPENS = (
    RING
    + """
def open_in_read(ring, path, flags, how):
    '''Have the ring open a file while this thread is in read(2). Returns the descriptor, or the error below 0.'''
    os.stat(path)  # what the kernel knows already it opens at once; else only workers do
    text = ctypes.create_string_buffer(path.encode())
    (begins, begin), (ends, end) = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        time.sleep(0.3)
        os.write(begin, b"x")
        time.sleep(1)
        os.write(end, b"x")
        os._exit(0)
    ring.submit((POLL, LINKED, begins, 0, 0, 1), (OPENAT, how, -100, ctypes.addressof(text), 0, flags))
    os.read(ends, 1)
    os.waitpid(helper, 0)
    for _ in range(6000):  # five minutes, which only failures take
        if len(answers := ring.answers()) == 2:
            break
        time.sleep(0.05)
    return answers[1]

def sleeper(user):
    ready, tell = os.pipe()
    target = os.fork()
    if target == 0:
        os.setresuid(user, user, user)
        os.write(tell, b"x")
        os.closerange(0, tell + 1)  # or the test would wait for its end, too
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    return target
"""
)
# A user with capabilities opens another user's memory. Poison would keep it from telling by a pipe how that went.
ATTACK = (
    OPENS
    + """
target, told = sleeper(1001), mmap.mmap(-1, 4096)
attacker = os.fork()
if attacker == 0:
    libc.prctl(28, 4, 0, 0, 0)  # SECBIT_NO_SETUID_FIXUP: keep all capabilities
    os.setresuid(1000, 1000, 1000)
    made = open_in_read(Ring(), f"/proc/{target}/mem", os.O_RDWR, int(sys.argv[1]))
    told[:4] = struct.pack("i", made)
    os._exit(7)
_, status = os.waitpid(attacker, 0)
os.kill(target, 9)
os.waitpid(target, 0)
if os.waitstatus_to_exitcode(status) == 7:
    print(target, *struct.unpack_from("i", told))
"""
)


def _said(victims: Victims, lacks: Callable[[str], NoReturn], code: str, *arguments: str) -> list[int]:
    """The numbers that it writes; skips where there is no io_uring."""
    said = victims.run(code, *arguments).stdout.split()
    if said[:1] == ["none"]:
        lacks(f"io_uring: {' '.join(said[1:])}")
    return [int(each) for each in said]


@pytest.mark.needs("fmod_ret")
@pytest.mark.parametrize("how", [pytest.param("0", id="on the way out"), pytest.param("16", id="by a worker")])
def test_memory_that_a_ring_opens_is_not_taken_for_a_read(
    judging: RunningAgent, victims: Victims, lacks: Callable[[str], NoReturn], how: str
) -> None:
    target, made = _said(victims, lacks, ATTACK, how)
    judging.settle()
    (line,) = judging.lines("runtime_integrity.ptrace", victims.mine)
    assert (line["event"]["operation"], line["event"]["target_tgid"]) == ("procfs", target)
    assert [each["id"] for each in line["decision"]["rules"]] == ["PTRACE001"]
    assert ("refused" in line["done"]) is (line["mode"] == "enforce")
    assert (made < 0) is (line["mode"] == "enforce"), made


HARMLESS = (
    OPENS
    + """
ring = Ring()
own = f"/proc/{os.getpid()}"
for name in ("stat", "status", "maps", "syscall", "mem", "personality"):
    with open(f"{own}/{name}", "rb", buffering=0) as file:
        file.read(100) if name != "mem" else None
other = sleeper(0)
for name in ("stat", "status", "maps", "io"):
    open(f"/proc/{other}/{name}").read()
os.kill(other, 9)
os.waitpid(other, 0)
assert open_in_read(ring, f"{own}/stat", os.O_RDONLY, 0) >= 0
assert open_in_read(Ring(), f"{own}/mem", os.O_RDWR, BY_A_WORKER) >= 0
os.setresuid(1000, 1000, 0)
os.setresuid(0, 0, 0)
libc.syscall(101, 0, 0, 0, 0)  # PTRACE_TRACEME, which is seen
"""
)


def test_who_has_rings_may_read_and_change_its_users(
    agent: RunningAgent, victims: Victims, lacks: Callable[[str], NoReturn]
) -> None:
    _said(victims, lacks, HARMLESS)
    agent.wait("runtime_integrity.ptrace", victims.mine)
    agent.settle()
    assert [each["event"]["operation"] for each in agent.lines("runtime_integrity.ptrace", victims.mine)] == ["traceme"]
    assert agent.lines("cfi.caller", victims.mine) == []
    assert agent.lines("runtime_integrity.cred_tamper", victims.mine) == []


UNKNOWN = (
    OPENS
    + """
ring, target = Ring(), sleeper(0)
open(f"/proc/{target}/syscall").read()
os.kill(target, 9)
os.waitpid(target, 0)
print(target)
"""
)


@pytest.mark.needs("kprobe")
def test_who_has_rings_may_be_writing_where_it_reads(
    journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn]
) -> None:
    """The kernel asks the same of one that shows what the kernel knows as of one that has its memory opened."""
    (target,) = _said(victims, lacks, UNKNOWN)
    (line,) = journal.exactly("runtime_integrity.ptrace", 1)
    assert (line["event"]["operation"], line["event"]["target_tgid"]) == ("procfs", target)
