"""The kernel survives what the agent and others do with their probes while its switches were written in memory.

Where it does not, the guest is lost: a breakpoint that nobody owns panics at the next exec, a filter of ftrace that was
emptied traces all functions.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.bpf_objects import bpf_objects, leftovers, objects_of
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for

from .hijacks import places_in

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
KPROBES = Path("/sys/kernel/debug/kprobes")
TRACED = Path("/sys/kernel/tracing/enabled_functions")
MOST_TRACED = 300
"""Functions that programs and kprobes of all tests together are attached to; a kernel has 40,000 and more."""
EVENTS = Path("/sys/kernel/tracing/events")


def use() -> None:
    """Run what is trapped: credentials are made and committed."""
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)
    for _ in range(200):
        os.access("/etc/passwd", os.R_OK)


@contextlib.contextmanager
def forged(module: TestModule, *, ftrace: bool = False) -> Iterator[None]:
    """Kprobes are said to be disarmed, or ftrace too to be off, and they are not."""
    with contextlib.ExitStack() as effects:
        effects.enter_context(module.effect("write", address_of("kprobes_all_disarmed"), "01"))
        if ftrace:
            effects.enter_context(module.effect("write", address_of("ftrace_enabled"), "00000000"))
        yield


def is_forged(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "probes_forged")


def enabled() -> bool:
    return (KPROBES / "enabled").read_text() == "1\n"


def keepers() -> dict[int, int]:
    """Processes that keep kprobes, with their parents."""
    found = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            tgid, comm, rest = each.read_text().replace(")", "(").split("(")
            state, parent = rest.split()[:2]
            if comm == "krie-keeper" and state != "Z":  # not every guest's init reaps
                found[int(tgid)] = int(parent)
    return found


def no_keeper_is_left() -> None:
    """Wait until all have let go. Why one does not is in the kernel's log: nobody else listens to it any more."""
    wait_for(lambda: not keepers(), lambda: (keepers(), [line for line in kernel_log() if "krie: " in line][-20:]))


def kernel_log() -> list[str]:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()


def events() -> set[str]:
    """Those that agents' traps are, in tracefs."""
    return {f"{each.parent.name}/{each.name}" for each in EVENTS.glob("krie_*/at_*")}


def healthy() -> None:
    """No breakpoint was left, and ftrace calls nobody from everywhere."""
    use()
    assert enabled()
    if TRACED.exists():
        assert len(TRACED.read_text().splitlines()) < MOST_TRACED


@pytest.fixture(scope="module")
def options(alone: None, agent_options: Mapping[str, Any]) -> dict[str, Any]:
    """Both plugins with probes of all kinds, observing: the switch is put right for the machine's sake, whatever the
    mode. Without those that compare or derive code meanwhile: that takes guests long."""
    plugins = {name: agent_options["plugins"][name] for name in ("runtime_integrity", "smep_smap")}
    return {"plugins": plugins, "agent": {"scan_interval_s": 60, "roaming_interval_s": 3600}}


@pytest.fixture(scope="module")
def standing(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("standing")
    folder.chmod(0o700)
    with RunningAgent(folder, **options) as agent:
        yield agent


def told(agent: RunningAgent) -> int:
    return len(agent.lines("krie.guarded", is_forged))


def test_a_keeper_that_does_not_answer(options: dict[str, Any], tmp_path: Path, test_module: TestModule) -> None:
    """Nothing is put right while it holds the kprobe at the idle function. The first here that forges a switch: behind
    it, an entry for that function is in the filter already.
    """
    tmp_path.chmod(0o700)
    with RunningAgent(tmp_path, **options) as agent:
        (keeper,) = keepers()
        os.kill(keeper, signal.SIGSTOP)
        try:
            with forged(test_module):
                agent.wait("krie.guarded", is_forged)
                assert not enabled()
                os.kill(keeper, signal.SIGCONT)
                wait_for(enabled)
        finally:
            os.kill(keeper, signal.SIGCONT)
        use()
    no_keeper_is_left()
    healthy()


@pytest.mark.parametrize("ftrace", [pytest.param(False, marks=pytest.mark.long), True])
def test_policies_reload(standing: RunningAgent, test_module: TestModule, *, ftrace: bool) -> None:
    before, reloads = told(standing), len(standing.lines("krie.policy"))
    with forged(test_module, ftrace=ftrace):
        standing.wait("krie.guarded", is_forged, before + 1)
        assert enabled()
        differing = standing.lines(
            "runtime_integrity.kernel_parameter", lambda line: line["event"]["state"] == "differs"
        )
        # Seen before it was put right; and told once, until a look finds it right.
        assert "kprobes_all_disarmed" in {line["event"]["symbol"] for line in differing}
        assert {each["id"] for line in differing for each in line["decision"]["rules"]} == {"KPARAM001"}
        standing.process.send_signal(signal.SIGHUP)
        standing.wait("krie.policy", lambda _: True, reloads + 1)
        use()
    healthy()


@pytest.mark.parametrize("ftrace", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_tracer_ends(standing: RunningAgent, test_module: TestModule, *, ftrace: bool) -> None:
    before = told(standing)
    commit = address_of("commit_creds")
    trap = int(next(iter(places_in("commit_creds").values())).split()[0], 16)
    type_ = Path("/sys/bus/event_source/devices/kprobe/type").read_text().strip()
    tracer = [sys.executable, "-IS", str(Path(__file__).with_name("tracer.py")), type_]
    places = [f"{each:x}" for each in (commit, trap, address_of("set_memory_rw"))]
    with subprocess.Popen([*tracer, *places], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready 3\n"
        with forged(test_module, ftrace=ftrace):
            standing.wait("krie.guarded", is_forged, before + 1)
            process.kill()
            process.wait()
            use()
    healthy()


def test_a_keeper_that_is_killed_is_replaced(standing: RunningAgent) -> None:
    def ours() -> list[int]:
        return [each for each, parent in keepers().items() if parent == standing.process.pid]

    (first,) = ours()
    os.kill(first, signal.SIGTERM)  # which it does not mind
    assert ours() == [first]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: ours() and ours() != [first])
    assert places_in("commit_creds")
    use()


def test_the_agent_ends(standing: RunningAgent, test_module: TestModule) -> None:
    with forged(test_module, ftrace=True):
        assert standing.stop() == 0
        use()
        assert Path("/proc/sys/kernel/ftrace_enabled").read_text() == "1\n"
    no_keeper_is_left()
    assert not places_in("commit_creds")
    assert not events()
    healthy()


def test_the_agent_is_killed(options: dict[str, Any], tmp_path: Path, test_module: TestModule) -> None:
    tmp_path.chmod(0o700)
    before = bpf_objects()
    agent = RunningAgent(tmp_path, **options).__enter__()
    objects = objects_of(agent.process.pid, before)
    with forged(test_module, ftrace=True):
        agent.kill()
        use()
        assert leftovers(objects) == frozenset()
        no_keeper_is_left()
        use()
    assert not places_in("commit_creds")
    assert not events()
    healthy()


@pytest.mark.parametrize("end", ["stop", pytest.param("kill", marks=pytest.mark.long)])
def test_probes_stay_where_ftrace_changes_nothing(
    options: dict[str, Any], tmp_path: Path, test_module: TestModule, end: str
) -> None:
    """Nothing resets `ftrace_disabled`."""
    tmp_path.chmod(0o700)
    agent = RunningAgent(tmp_path, **options).__enter__()
    with test_module.effect("write", address_of("ftrace_disabled"), "01000000"):
        agent.wait("krie.guarded", is_forged)
        if end == "stop":
            assert agent.stop() == 0
            assert "keeps the probes until they can be removed: ftrace_disabled is set" in agent.stderr
        else:
            agent.kill()
        use()
        assert keepers()
        assert places_in("commit_creds")
    no_keeper_is_left()
    assert not places_in("commit_creds")
    healthy()
