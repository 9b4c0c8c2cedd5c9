"""Who is preempted amid programs has others pass them: nobody is judged by what they missed. In guests only."""

from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.victims import Victims

from .descriptors import descriptions

pytestmark = [pytest.mark.needs("guest"), pytest.mark.needs("fentry", "fmod_ret")]
PREEMPTION = Path("/sys/kernel/debug/sched/preempt")

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
