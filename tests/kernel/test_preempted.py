"""Who is preempted amid programs has others pass them: nobody is judged by what they missed. In guests only."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from krie.kernel import bpf
from krie.kernel.bpf_attributes import ById, ProgInfo
from krie.kernel.bpf_listing import opened
from krie.testing.agent import RunningAgent
from krie.testing.victims import Victims

from .descriptors import descriptions

pytestmark = [pytest.mark.needs("guest"), pytest.mark.needs("fentry", "fmod_ret")]
PREEMPTION = Path("/sys/kernel/debug/sched/preempt")
FTRACE = Path("/proc/sys/kernel/ftrace_enabled")

CHANGES = """
import random, time
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
memory = os.memfd_create("memory")
parent = os.getpid()
for _ in range(16):
    if not os.fork():  # one that anybody may have, and that goes on only where nobody else does
        os.closerange(0, 3)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        while os.getppid() == parent:
            libc.prctl(8, 1, 0, 0, 0)
        os._exit(0)
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
for _ in range(1500):
    time.sleep(random.uniform(0.001, 0.005))
    for user in (1000, 0):
        os.setresuid(user, user, 0)
        os.close(os.open(f"/proc/self/fd/{memory}", os.O_WRONLY))
print("went on")
"""


def _missed(agent: RunningAgent) -> int:
    return sum(int(each.get("recursion_misses", 0)) for each in descriptions(agent.process.pid).values())


def test_who_changes_legally_amid_threads_that_were_preempted(enforcer: RunningAgent, victims: Victims) -> None:
    before = _missed(enforcer)
    assert victims.run(CHANGES).stdout == "went on\n"
    enforcer.settle()
    assert enforcer.lines("runtime_integrity.cred_tamper", victims.mine) == []
    preempts = PREEMPTION.exists() and any(f"({each})" in PREEMPTION.read_text() for each in ("full", "lazy"))
    assert _missed(enforcer) > before or not preempts


@pytest.fixture
def preempting() -> Iterator[None]:
    """The kernel preempts itself, where it can be told to."""
    before = PREEMPTION.read_text() if PREEMPTION.exists() else ""
    with suppress(OSError):
        PREEMPTION.write_text("full")
    yield
    for each in before.split():
        if each.startswith("("):
            PREEMPTION.write_text(each.strip("()"))


def _program(agent: RunningAgent, name: str) -> tuple[int, set[int]]:
    """How many runs were left out of a program of the agent's, and the numbers of its maps."""
    own = {int(each["prog_id"]) for each in descriptions(agent.process.pid).values() if "prog_id" in each}
    maps = (ctypes.c_uint32 * 64)()
    for number, descriptor in opened(bpf.Command.PROG_GET_NEXT_ID, bpf.Command.PROG_GET_FD_BY_ID):
        info = bpf.ask_about(descriptor, ProgInfo(nr_map_ids=64, map_ids=ctypes.addressof(maps)))
        if number in own and info.name.decode().startswith(name):
            return info.recursion_misses, set(maps[: info.nr_map_ids])
    raise AssertionError(name)


def _missed_and_made_up(agent: RunningAgent) -> tuple[int, int]:
    """Of the first program at commit_creds(), by the kernel, and by the second one in the only map of these two."""
    missed, maps = _program(agent, "ri_commit_fe")
    (number,) = maps - _program(agent, "ri_cred_pre")[1]
    descriptor = bpf.checked("opening a map", bpf.Command.MAP_GET_FD_BY_ID, ById(number))
    try:
        return missed, int.from_bytes(bpf.lookup(descriptor, bytes(4), 8) or b"", "little", signed=True)
    finally:
        os.close(descriptor)


def test_what_passes_the_first_program_at_commits_is_counted_by_the_second(
    preempting: None, observer: RunningAgent, victims: Victims
) -> None:
    missed, made_up = _missed_and_made_up(observer)
    assert victims.run(CHANGES).stdout == "went on\n"
    still_missed, still_made_up = _missed_and_made_up(observer)
    assert still_made_up - made_up == still_missed - missed
    preempts = PREEMPTION.exists() and "(full)" in PREEMPTION.read_text()
    assert still_missed > missed or not preempts


def test_what_does_not_count_yet_is_not_made_up_for(observer: RunningAgent, victims: Victims) -> None:
    """Else it would hide as many commits that really pass both programs."""
    with suppress(OSError):  # a kernel may refuse it, and what was noted may be out of date all the same
        FTRACE.write_text("0")
    FTRACE.write_text("1")
    missed, made_up = _missed_and_made_up(observer)
    assert victims.run("for _ in range(50):\n    os.setresuid(0, 0, 0)").returncode == 0
    still_missed, still_made_up = _missed_and_made_up(observer)
    assert still_made_up - made_up <= still_missed - missed
