"""The kernel survives agents that start and end while the static key of a tracepoint was written in memory.

Where it does not, whoever attaches next to that tracepoint, or was the last to leave it, makes the kernel stop with a
BUG while it holds what all changes of its text wait for: the guest is lost.
"""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from krie.testing.agent import AgentFailed, RunningAgent
from krie.testing.module import TestModule, address_of

from .test_switches import is_forged, keepers, no_keeper_is_left, use

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
KEY = 8
"""Where a tracepoint has it."""


def key_of(tracepoint: str) -> int:
    return address_of(f"__tracepoint_{tracepoint}") + KEY


@pytest.fixture(scope="module")
def options(alone: None, agent_options: Mapping[str, Any]) -> dict[str, Any]:
    return {"plugins": {"runtime_integrity": agent_options["plugins"]["runtime_integrity"]}}


def refused(folder: Path, options: dict[str, Any], tracepoint: str) -> None:
    """An agent does not start, and says why."""
    folder.mkdir(mode=0o700)
    with pytest.raises(AgentFailed, match=f"attaching to {tracepoint}: .*its static key was written in memory"):
        RunningAgent(folder, **options).__enter__()


@pytest.mark.parametrize("end", ["stop", pytest.param("kill", marks=pytest.mark.long)])
def test_probes_stay_until_the_key_is_as_it_was(
    options: dict[str, Any], tmp_path: Path, test_module: TestModule, end: str
) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "first").mkdir(mode=0o700)
    agent = RunningAgent(tmp_path / "first", **options).__enter__()
    with test_module.effect("write", key_of("sched_process_exec"), "00000000"):
        agent.wait("krie.guarded", is_forged)
        agent.process.send_signal(signal.SIGHUP)  # a reload changes nothing that is attached
        agent.wait("krie.policy")
        use()
        if end == "stop":
            assert agent.stop() == 0
            assert "keeps the probes until they can be removed: the static key" in agent.stderr
        else:
            agent.kill()
        use()
        assert keepers()
        refused(tmp_path / "second", options, "sched_process_exec")
        use()
    no_keeper_is_left()
    use()


@pytest.mark.long
def test_nobody_attaches_where_the_key_says_that_somebody_is(
    options: dict[str, Any], tmp_path: Path, test_module: TestModule
) -> None:
    """He would not be seen, and the text would not be what his leave expects."""
    with test_module.effect("write", key_of("sched_wakeup_new"), "01000000"):
        refused(tmp_path / "first", options, "sched_wakeup_new")
    use()
