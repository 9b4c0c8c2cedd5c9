"""An agent's life: what it leaves behind, what it loses under a burst, and what a reload changes."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from krie.testing.agent import AgentFailed, RunningAgent, fired
from krie.testing.bpf_objects import bpf_objects, leftovers, objects_of

from .descriptors import descriptions

# Credentials, which not every kernel lets be watched, have tests of their own.
PLUGINS: dict[str, dict[str, Any]] = {"runtime_integrity": {"required": True, "watch_credentials": False}}

UNBOUNDED = {"user_burst": 1_000_000, "user_rate": 1_000_000}
"""So that all is told: what a user may send has tests of its own."""

BURST = """
import ctypes, sys
libc, attr = ctypes.CDLL(None), ctypes.create_string_buffer(8)
call, pointer = libc.syscall, ctypes.byref(attr)
for _ in range(int(sys.argv[1])):
    call(321, 9999, pointer, 8)
"""

# The same for each line of standard input, which says how many.
LOAD = """
import ctypes, sys
libc, attr = ctypes.CDLL(None), ctypes.create_string_buffer(8)
call, pointer = libc.syscall, ctypes.byref(attr)
for line in sys.stdin:
    for _ in range(int(line)):
        call(321, 9999, pointer, 8)
"""


# How many calls at a time, and how many the journal may be behind: both together fit into the ring, however slow a
# busy machine makes the agent.
BATCH, AHEAD = 2000, 4000


def burst(count: int) -> None:
    """So many bpf() calls with a command that no kernel has."""
    subprocess.run([sys.executable, "-IS", "-c", BURST, str(count)], check=True)


def is_burst(line: dict[str, Any]) -> bool:
    return bool(line["event"]["command"] == "other")


class Load:
    """Calls bpf() without end, as fast as the agent's journal follows."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        command = [sys.executable, "-IS", "-c", LOAD]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._count = self._pool.submit(self._press)

    def is_its(self, line: dict[str, Any]) -> bool:
        return is_burst(line) and bool(line["process"]["tgid"] == self.process.pid)

    def end(self) -> int:
        """How many calls it was."""
        self._end.set()
        self._pool.shutdown()
        return self._count.result()

    def _press(self) -> int:
        count = 0
        calls = self.process.stdin
        assert calls is not None
        with self.process, calls:
            while not self._end.is_set():
                print(BATCH, file=calls, flush=True)
                count += BATCH
                self._agent.wait("runtime_integrity.bpf", self.is_its, max(count - AHEAD, 0))
        return count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_sigkill_leaves_nothing_attached_or_loaded(folder: Path) -> None:
    before = bpf_objects()
    agent = RunningAgent(folder, plugins=PLUGINS, executed=True).__enter__()
    objects = objects_of(agent.process.pid, before)
    assert {kind for kind, _ in objects} == {"prog", "map", "link"}
    agent.kill()
    assert leftovers(objects) == frozenset()


def is_before(line: dict[str, Any]) -> bool:
    """It is about the agent before: a busy machine holds this one up, too."""
    return bool(line["event"]["state"] == "died")


@pytest.mark.once
def test_the_next_agent_tells_that_nobody_watched(folder: Path) -> None:
    dead = RunningAgent(folder, plugins=PLUGINS).__enter__()
    dead.kill()
    with RunningAgent(folder, plugins=PLUGINS) as agent:
        (gap,) = agent.lines("krie.gap", is_before)
    assert gap["event"]["tgid_before"] == dead.process.pid
    assert fired(gap) == [("AGENT008", "log")]
    with RunningAgent(folder, plugins=PLUGINS) as agent:
        assert not agent.lines("krie.gap", is_before)  # the one before ended by itself


@pytest.mark.long
def test_sigterm_detaches_and_reports_counts(folder: Path) -> None:
    before = bpf_objects()
    with RunningAgent(folder, plugins=PLUGINS) as agent:
        burst(5)
        agent.wait("runtime_integrity.bpf", is_burst, 5)
        objects = objects_of(agent.process.pid, before)
        assert agent.stop() == 0
    assert leftovers(objects) == frozenset()
    (stopped,) = agent.lines("krie.stopped")
    assert stopped["event"]["reason"] == "SIGTERM"
    assert stopped["event"]["lost"] == 0
    assert stopped["event"]["events"] == stopped["seq"] - 1 >= 5
    assert agent.journal.read_text().splitlines()[-1].count("krie.stopped") == 1
    assert agent.journal.stat().st_mode & 0o777 == 0o600
    assert "stopped (SIGTERM)" in agent.stderr
    assert agent.stderr.index("arming: probes of ") < agent.stderr.index("armed in ")  # it may take half a minute


@pytest.mark.once
def test_a_second_agent_is_refused_with_the_firsts_tgid(folder: Path) -> None:
    with RunningAgent(folder, plugins=PLUGINS) as agent:
        command = [sys.executable, "-I", "-m", "krie.agent", "--config", str(agent.config)]
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 6
        assert f"another agent is running on this machine (tgid {agent.process.pid})" in second.stderr


@pytest.mark.once
def test_the_agent_maps_no_compiler(folder: Path) -> None:
    with RunningAgent(folder, plugins=PLUGINS) as agent:
        maps = Path(f"/proc/{agent.process.pid}/maps").read_text()
        assert "libbpf.so" in maps
        assert not [word for word in ("libLLVM", "libbcc.so") if word in maps]
        inheritable = [
            descriptor
            for descriptor, each in descriptions(agent.process.pid).items()
            if descriptor > 2 and not int(each["flags"], 8) & os.O_CLOEXEC
        ]
        assert inheritable == []


@pytest.mark.once
def test_an_overflow_is_counted_exactly(folder: Path) -> None:
    count = 20_000
    with RunningAgent(folder, plugins=PLUGINS, agent={"ring_mib": 1, **UNBOUNDED}) as agent:
        agent.process.send_signal(signal.SIGSTOP)
        burst(count)
        agent.process.send_signal(signal.SIGCONT)
        agent.wait("krie.loss", lambda line: line["event"]["lost_kind"] == "runtime_integrity.bpf")
        agent.settle()
        lost = agent.lines("krie.loss")
        seen = len(agent.lines("runtime_integrity.bpf", is_burst))
    counted = sum(line["event"]["count"] for line in lost if line["event"]["lost_kind"] == "runtime_integrity.bpf")
    assert counted > 0
    assert seen + counted == count
    assert {line["event"]["cause"] for line in lost} == {"ring_full"}
    assert fired(lost[0]) == [("AGENT001", "log")]


@pytest.mark.once
def test_a_backlog_of_seconds_is_no_loss(folder: Path) -> None:
    count = 80_000
    with RunningAgent(folder, plugins=PLUGINS, agent={"ring_mib": 64, **UNBOUNDED}) as agent:
        agent.process.send_signal(signal.SIGSTOP)
        burst(count)
        agent.process.send_signal(signal.SIGCONT)
        agent.wait("runtime_integrity.bpf", is_burst, count)
        agent.settle()
        assert agent.lines("krie.loss") == []


RULE = """package krie.site
rules contains {{"id": "{id}", "action": "log"}} if {{
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "other"
}}
"""


@pytest.mark.once
def test_a_reload_under_load_loses_nothing_and_refuses_what_is_broken(folder: Path) -> None:
    site = folder / "site"
    site.mkdir(mode=0o700)
    rules = site / "site.rego"
    rules.write_text(RULE.format(id="SITE1"))
    with RunningAgent(folder, plugins=PLUGINS, policies=[site], agent={"ring_mib": 128, **UNBOUNDED}) as agent:
        load = Load(agent)
        agent.wait("runtime_integrity.bpf", load.is_its)
        rules.write_text(RULE.format(id="SITE2"))  # noticed without a signal
        (loaded,) = agent.wait("krie.policy")
        agent.wait(
            "runtime_integrity.bpf", lambda line: load.is_its(line) and line["decision"]["rules"][0]["id"] == "SITE2"
        )
        rules.write_text(
            RULE.format(id="SITE3").replace("==", "=", 1).replace("input.event.kind", "input.event.kind =")
        )
        _, refused = agent.wait("krie.policy", count=2)
        agent.process.send_signal(signal.SIGHUP)
        agent.wait("krie.policy", count=3)
        count = load.end()
        agent.settle()
        lines = agent.lines("runtime_integrity.bpf", load.is_its)
        assert len(lines) == len({line["time"] for line in lines}) == count
        assert agent.lines("krie.loss") == []
    assert (loaded["event"]["state"], refused["event"]["state"]) == ("loaded", "refused")
    assert f"{rules}:3:" in refused["event"]["reason"]
    assert refused["event"]["revision"] == loaded["event"]["revision"]
    assert fired(refused) == [("AGENT004", "log")]
    seen = [line["decision"]["rules"][0]["id"] for line in lines]
    assert set(seen) == {"SITE1", "SITE2"}
    assert seen == sorted(seen)
    assert "new policy rejected, keeping the previous one" in agent.stderr


@pytest.mark.once
def test_a_policy_that_others_could_change_is_refused(folder: Path) -> None:
    site = folder / "site"
    site.mkdir(mode=0o700)
    (site / "site.rego").write_text(RULE.format(id="SITE1"))
    (site / "site.rego").chmod(0o666)
    agent = RunningAgent(folder, plugins=PLUGINS, policies=[site])
    with pytest.raises(AgentFailed, match=r"site.rego: can be changed by other users: chmod go-w"):
        agent.__enter__()
    assert agent.stop() == 2


@pytest.mark.once
def test_mistakes_end_the_start_with_their_exit_code(folder: Path) -> None:
    agent = RunningAgent(folder, plugins={"runtime_integirty": {}})
    with pytest.raises(AgentFailed, match=r"names no installed plugin; did you mean 'runtime_integrity'\?"):
        agent.__enter__()
    assert agent.stop() == 2
    agent = RunningAgent(folder, plugins={"runtime_integrity": {"map_acess": True}})
    with pytest.raises(
        AgentFailed, match=r"plugins.runtime_integrity.map_acess: no such key; did you mean 'map_access'\?"
    ):
        agent.__enter__()
    assert agent.stop() == 2
