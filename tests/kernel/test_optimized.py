"""The kernel survives what the agent and others do with probes that it has optimized to jumps, while its switch lies.

Where it does not, the guest is lost: a jump that nobody owns leads to memory that was freed.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule

from .hijacks import LIST, places_in
from .test_switches import forged, healthy, is_forged, keepers, use, wait_for

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
SWITCH = Path("/proc/sys/debug/kprobes-optimization")
ROAMS_S = 10
_JUMP_BYTES = 5


def optimized() -> dict[int, str]:
    """The agent's traps that are jumps, by their addresses."""
    lines = [line for line in LIST.read_text().splitlines() if "[OPTIMIZED]" in line]
    return {int(line.split()[0], 16): line for line in lines}


def trace(place: int) -> subprocess.Popen[bytes] | None:
    """Hold a kprobe at an address; None where no instruction begins there."""
    type_ = Path("/sys/bus/event_source/devices/kprobe/type").read_text().strip()
    command = [sys.executable, "-IS", str(Path(__file__).with_name("tracer.py")), type_, f"{place:x}"]
    tracer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert tracer.stdout is not None
    if tracer.stdout.readline() == b"ready\n":
        return tracer
    tracer.communicate()
    return None


def ended(tracer: subprocess.Popen[bytes]) -> None:
    tracer.kill()
    tracer.communicate()


@pytest.fixture(scope="module")
def standing(
    alone: None, agent_options: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgent]:
    """Observing; the last test here ends it."""
    folder = tmp_path_factory.mktemp("optimized")
    folder.chmod(0o700)
    settings = {"scan_interval_s": 60, "roaming_interval_s": ROAMS_S}
    with RunningAgent(folder, plugins={"smep_smap": {}}, agent=settings) as running:
        yield running


@pytest.fixture
def jumping(standing: RunningAgent) -> Iterator[RunningAgent]:
    """With traps that are jumps."""
    assert SWITCH.read_text() == "1\n"
    wait_for(optimized)
    yield standing
    SWITCH.write_text("1\n")


def told(agent: RunningAgent) -> int:
    return len(agent.lines("krie.guarded", is_forged))


@pytest.mark.long
def test_they_are_switched_while_the_other_switch_lies(jumping: RunningAgent, test_module: TestModule) -> None:
    for _ in range(3):
        before = told(jumping)
        with forged(test_module):
            SWITCH.write_text("0\n")
            use()
            SWITCH.write_text("1\n")
            jumping.wait("krie.guarded", is_forged, before + 1)
            use()
            SWITCH.write_text("0\n")
        use()
        SWITCH.write_text("1\n")
        wait_for(optimized)
    healthy()


@pytest.mark.long
def test_a_tracer_comes_into_a_jump_and_goes(jumping: RunningAgent, test_module: TestModule) -> None:
    before = told(jumping)
    jump = min(optimized())
    tracers = [tracer for place in range(jump, jump + _JUMP_BYTES) if (tracer := trace(place)) is not None]
    with forged(test_module):
        use()
        jumping.wait("krie.guarded", is_forged, before + 1)
        for each in tracers:
            ended(each)
        use()
    healthy()


@pytest.mark.long  # a switch that is written while a trap moves loses the guest: docs/explanation/forged-switches.md
def test_jumps_roam_and_are_undone(jumping: RunningAgent, test_module: TestModule) -> None:
    before, traps = told(jumping), places_in("commit_creds")
    with forged(test_module):
        jumping.wait("krie.guarded", is_forged, before + 1)
        wait_for(lambda: places_in("commit_creds") != traps)
        use()
    healthy()
    wait_for(optimized)
    with forged(test_module):
        jumping.wait("krie.guarded", is_forged, told(jumping) + 1)
        assert jumping.stop() == 0
        use()
    wait_for(lambda: not keepers())
    assert not places_in("commit_creds")
    healthy()
