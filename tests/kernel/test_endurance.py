"""What is taken from an agent that guards nothing, as one that only observes, is put right and does not end it."""

import os
import resource
from pathlib import Path

from krie.agent.admin import ask
from krie.testing.agent import RunningAgent
from krie.testing.patience import wait_for


def test_its_descriptors(agent: RunningAgent) -> None:
    process = agent.process.pid
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (3, before[1]))
    assert ask(agent.run_dir, {"ask": "status"}, agent.timeout_s)["tgid"] == process
    agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == "limits_lowered")
    assert resource.prlimit(process, resource.RLIMIT_NOFILE) == before


def test_its_priority(agent: RunningAgent) -> None:
    process = agent.process.pid
    # Both: while the agent is at a map it has another policy, and after that the one it had before.
    os.setpriority(os.PRIO_PROCESS, process, 5)
    os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))
    agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == "priority_lowered")
    wait_for(lambda: (os.sched_getscheduler(process), os.getpriority(os.PRIO_PROCESS, process)) == (os.SCHED_OTHER, 0))


def test_its_place_before_the_oom_killer(agent: RunningAgent) -> None:
    file = Path(f"/proc/{agent.process.pid}/oom_score_adj")
    before = file.read_text()
    file.write_text("1000\n")
    agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == "oom_score_raised")
    assert file.read_text() == before
