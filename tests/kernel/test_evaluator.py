"""A real agent whose policies block, crash and change while being read, and whose evaluators are killed and stopped."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from krie.agent.admin import ask
from krie.child import NAME
from krie.testing.agent import RunningAgent
from krie.testing.patience import PATIENCE_S, wait_for

from .test_lifecycle import PLUGINS, UNBOUNDED, burst

# Each process's tgid is another input: nothing of it is remembered.
RULE = """package krie.site

rules contains {"id": "SITE", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "other"
	input.process.tgid > 0
}
"""
BLOCKS = """package krie.blocks

rules contains {"id": "BLOCKS", "action": "kill"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "other"
	count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i == j + input.process.tgid]) == 1
}
"""
MEMORY = """package krie.memory

rules contains {"id": "MEMORY", "action": "kill"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "other"
	bits.lsh(input.process.tgid, 4000000000) > 5
}
"""

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def site(folder: Path) -> Path:
    site = folder / "site"
    site.mkdir(mode=0o700)
    (site / "site.rego").write_text(RULE)
    return site


@pytest.fixture
def agent(folder: Path, site: Path) -> Iterator[RunningAgent]:
    with RunningAgent(
        folder,
        plugins=PLUGINS,
        policies=[site],
        agent={"ring_mib": 64, **UNBOUNDED},
        policy={"decision_ms": 1000},
    ) as agent:
        yield agent


def status(agent: RunningAgent) -> dict[str, Any]:
    return ask(agent.run_dir, {"ask": "status"}, agent.timeout_s)


def calls(agent: RunningAgent, count: int) -> list[dict[str, Any]]:
    """The lines of so many calls by a process of its own."""
    before = len(agent.lines("runtime_integrity.bpf", is_call))
    burst(count)
    return agent.wait("runtime_integrity.bpf", is_call, before + count)[before:]


def is_call(line: dict[str, Any]) -> bool:
    return bool(line["event"]["command"] == "other")


def ids(line: dict[str, Any]) -> list[str]:
    return [rule["id"] for rule in line["decision"]["rules"]]


def children(tgid: int) -> set[int]:
    """Those that have to do with policies."""
    found = set()
    for each in map(int, Path(f"/proc/{tgid}/task/{tgid}/children").read_text().split()):
        with suppress(OSError):  # it has ended since: evaluators come and go
            found |= {each} if Path(f"/proc/{each}/comm").read_text() == f"{NAME}\n" else set()
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_evaluator_that_is_killed_or_stopped_costs_no_decision(agent: RunningAgent, number: signal.Signals) -> None:
    before = status(agent)["evaluator"]
    os.kill(before, number)
    lines = calls(agent, 20_000)
    assert {each["decision"].get("error") for each in lines} == {None}
    assert all("SITE" in ids(each) for each in lines)
    (failed,) = agent.wait("krie.policy")
    assert failed["event"]["state"] == "failed"
    assert ids(failed) == ["AGENT014"]
    assert status(agent)["evaluator"] not in (None, before)
    assert agent.lines("krie.loss") == []


# A busy machine may not even get to the crash within policy.decision_ms; unit tests tell the two apart.
@pytest.mark.parametrize(
    ("text", "why"),
    [(BLOCKS, "gave no answer within"), (MEMORY, "SIGABRT|gave no answer within")],
    ids=("time", "memory"),
)
def test_a_policy_that_blocks_or_crashes_costs_its_own_rules_only(
    agent: RunningAgent, site: Path, text: str, why: str
) -> None:
    (site / "wrong.rego").write_text(text)
    agent.wait("krie.policy", lambda line: line["event"]["state"] == "loaded")
    lines = calls(agent, 20_000)
    assert all({"SITE", "policy.on_error"} <= set(ids(each)) for each in lines)
    assert re.search(why, lines[0]["decision"]["error"])
    assert agent.wait("krie.policy", lambda line: line["event"]["state"] == "failed")
    assert agent.lines("krie.loss") == []
    processes = {agent.process.pid, *children(agent.process.pid)}
    threading.Timer(0.2, agent.process.terminate).start()
    burst(10)  # another process: it blocks again, and is told to end meanwhile
    assert agent.process.wait(PATIENCE_S) == 0
    wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))


def test_a_policy_that_cannot_be_compiled_in_time_is_refused_and_the_agent_goes_on(
    agent: RunningAgent, site: Path
) -> None:
    slow = BLOCKS.replace('\tinput.event.command == "other"\n', "").replace("3000", "300000")
    (site / "wrong.rego").write_text(slow)
    before = len(agent.lines("krie.policy"))
    time.sleep(2)  # policy.check_interval_s, and it is being compiled
    started = time.monotonic()
    assert all("SITE" in ids(each) for each in calls(agent, 100))
    assert len(agent.lines("krie.policy")) == before
    agent.process.terminate()
    assert agent.process.wait(PATIENCE_S) == 0
    assert time.monotonic() - started < 60  # policy.load_s


def test_a_folder_that_is_swapped_again_and_again_ends_nothing(agent: RunningAgent, site: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap, but all the time."""
    old, number = "", 0
    end = time.monotonic() + 6
    while time.monotonic() < end:
        number += 1
        new = f"..{number:06d}"
        (site / new).mkdir()
        (site / new / "mine.rego").write_text(RULE.replace("site", "mine").replace("SITE", f"MINE{number}"))
        (site / new / "mine.json").write_text(f'{{"mine": {number}}}')
        (site / "..new").symlink_to(new)
        (site / "..new").rename(site / "..data")
        for name in ("mine.rego", "mine.json"):
            if not (site / name).is_symlink():
                (site / name).symlink_to(f"..data/{name}")
        if old:
            shutil.rmtree(site / old)
        old = new
        time.sleep(0.002)
    deadline = time.monotonic() + PATIENCE_S
    while f"MINE{number}" not in ids(calls(agent, 1)[0]):
        assert time.monotonic() < deadline
    assert agent.process.poll() is None


def test_a_link_to_itself_is_refused(agent: RunningAgent, site: Path) -> None:
    (site / "l.rego").symlink_to("l.rego")
    (refused,) = agent.wait("krie.policy")
    assert refused["event"]["state"] == "refused"
    assert "l.rego: cannot be read: Too many levels of symbolic links" in refused["event"]["reason"]


def test_nothing_stays_of_an_agent_that_is_killed(agent: RunningAgent) -> None:
    processes = children(agent.process.pid)
    assert len(processes) == 3  # what forks, what keeps the policy, what decides
    agent.kill()
    wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in processes))


def test_check_says_what_would_end_an_agent(folder: Path, site: Path) -> None:
    (site / "wrong.rego").write_text(
        MEMORY.replace('	input.event.command == "other"\n', "").replace("input.process.tgid", "1")
    )
    config = folder / "krie.toml"
    config.write_text(f'[policy]\npaths = ["{site}"]\n[plugins.runtime_integrity]\n')
    command = [str(Path(sys.executable).with_name("krie")), "policy", "check", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 4, done.stderr
    assert "SIGABRT" in done.stderr
    assert "at data.krie.memory for an event of runtime_integrity.bpf" in done.stderr
