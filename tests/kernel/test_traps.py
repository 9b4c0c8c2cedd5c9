"""The kernel survives whatever is written to its memory while traps are attached, moved and detached.

Where it does not, the guest is lost: a breakpoint that nobody owns panics at the next exec.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from krie.kernel.attach import kprobe_type
from krie.kernel.perf_event import perf_event
from krie.kernel.symbols import functions
from krie.kernel.traps import Traps
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for

from .hijacks import LIST, places_in
from .kernel_memory import read_memory
from .test_static_keys import key_of
from .test_switches import events, forged, healthy, is_forged, keepers, no_keeper_is_left, use

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
OPTIMIZATION = Path("/proc/sys/debug/kprobes-optimization")
ROAMS_S = 1
STAYS = "stays where it was: the kernel would leave breakpoints and calls behind: the static key"
FORGERIES = 25
OPTIMIZES_S = 2
"""Longer than the kernel takes until it has put jumps where it can."""
_JUMP, _JUMP_BYTES = b"\xe9", 5
_FUNCTION = "commit_creds"
NOBODY = 4194303
"""A tgid that no process has: the kernel's limit is one more."""


@contextlib.contextmanager
def tracer_at(places: Iterable[int]) -> Iterator[int]:
    """Somebody else holds kprobes at these addresses, where an instruction begins; yields at how many."""
    type_ = Path("/sys/bus/event_source/devices/kprobe/type").read_text().strip()
    command = [sys.executable, "-IS", str(Path(__file__).with_name("tracer.py")), type_]
    with subprocess.Popen(
        [*command, *(f"{each:x}" for each in places)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tracer:
        assert tracer.stdout is not None
        yield int(tracer.stdout.readline().split()[1])
        tracer.kill()


def traps() -> dict[int, str]:
    """Addresses of what is attached inside functions, with the kernel's lines."""
    lines = [line for line in LIST.read_text().splitlines() if "[FTRACE]" not in line and "[DISABLED]" not in line]
    return {int(line.split()[0], 16): line for line in lines}


def told(agent: RunningAgent) -> int:
    return len(agent.lines("krie.guarded", is_forged))


def optimized() -> set[int]:
    """Addresses where the kernel turned breakpoints to jumps."""
    # The kernel's list tells it before the text has them.
    return {place for place, line in traps().items() if "[OPTIMIZED]" in line and read_memory(place, 1) == _JUMP}


def moved(before: set[str]) -> bool:
    """Whether no trap is where one was, but in functions that have no other place."""
    return len(events() - before) > 5


@pytest.fixture(scope="module")
def options(alone: None, agent_options: Mapping[str, Any]) -> dict[str, Any]:
    return {"plugins": {"smep_smap": {}}, "agent": {"scan_interval_s": 60, "roaming_interval_s": ROAMS_S}}


@pytest.fixture(scope="module")
def roaming(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """Observing; the last test but one here ends it."""
    folder = tmp_path_factory.mktemp("traps")
    folder.chmod(0o700)
    with RunningAgent(folder, **options) as running:
        yield running


def test_none_is_a_jump_and_none_is_left_where_it_was(roaming: RunningAgent) -> None:
    assert OPTIMIZATION.read_text() == "1\n"
    for _ in range(3):
        before = events()
        wait_for(partial(moved, before))
        assert not [line for line in traps().values() if "[OPTIMIZED]" in line]
    assert len(events()) < 4 * len(traps())
    assert {each.split("/")[0] for each in events()} == {f"krie_{roaming.process.pid}"}


@pytest.mark.parametrize("ftrace", [pytest.param(False, marks=pytest.mark.long), True])
def test_they_roam_while_the_switch_lies(roaming: RunningAgent, test_module: TestModule, *, ftrace: bool) -> None:
    before, places = told(roaming), events()
    with forged(test_module, ftrace=ftrace):
        roaming.wait("krie.guarded", is_forged, before + 1)
        use()
        wait_for(lambda: moved(places))
        use()
    healthy()


def test_they_stay_while_a_static_key_lies(roaming: RunningAgent, test_module: TestModule) -> None:
    """Nothing puts it right."""
    before = told(roaming)
    with test_module.effect("write", key_of("sched_process_exec"), "00000000"):
        roaming.wait("krie.guarded", is_forged, before + 1)
        places, said = events(), roaming.stderr.count(STAYS)
        wait_for(lambda: roaming.stderr.count(STAYS) > said)
        use()
        assert events() <= places
    wait_for(lambda: moved(places))
    healthy()


def test_the_switch_is_written_again_and_again(roaming: RunningAgent, test_module: TestModule) -> None:
    """At any instant of a move, with what would be struck by a breakpoint that nobody owns running in between."""
    chance = random.Random(1)
    for _ in range(FORGERIES):  # 150 at once were survived, too
        time.sleep(chance.uniform(0, 0.1))
        with forged(test_module):
            time.sleep(chance.uniform(0, 0.1))
            subprocess.run(["/bin/true"], check=True)
        subprocess.run(["/bin/true"], check=True)
    places = events()
    wait_for(lambda: moved(places))
    wait_for(lambda: len(events()) <= 2 * len(traps()))
    healthy()


def test_kprobes_are_said_to_be_disarmed_one_by_one(roaming: RunningAgent, test_module: TestModule) -> None:
    find = address_of("get_kprobe")
    for _ in range(3):
        with contextlib.ExitStack() as effects:
            for place in traps():
                with contextlib.suppress(FileNotFoundError):  # it has moved
                    effects.enter_context(test_module.effect("flag", find, place))
            before = events()
            wait_for(partial(moved, before))
            use()
        healthy()
    wait_for(lambda: len(events()) <= 2 * len(traps()))


def test_tracers_stand_where_traps_come_and_go(roaming: RunningAgent, test_module: TestModule) -> None:
    """Among them some whose kprobes the kernel turns to jumps, which no trap may come to lie in."""
    first = address_of(_FUNCTION) + min(places_in(_FUNCTION)) + _JUMP_BYTES
    with tracer_at(range(first, first + 60)) as held:
        assert held > 10
        for _ in range(2):
            before = told(roaming)
            places = events()
            wait_for(partial(moved, places))
            with forged(test_module):
                OPTIMIZATION.write_text("0\n")
                use()
                OPTIMIZATION.write_text("1\n")
                roaming.wait("krie.guarded", is_forged, before + 1)
                use()
            healthy()
        time.sleep(OPTIMIZES_S)
    healthy()


def test_the_agent_ends(roaming: RunningAgent, test_module: TestModule) -> None:
    with forged(test_module):
        assert roaming.stop() == 0
        use()
    no_keeper_is_left()
    assert not traps()
    assert not events()
    healthy()


def attach_where_one_begins(made: Traps, place: int) -> int:
    """Nothing (0) where no instruction does."""
    with contextlib.suppress(OSError):
        return made.attach(place, -1)
    return 0


def test_a_place_that_was_taken_again_is_freed(alone: None) -> None:
    """The one that stands there is not harmed, and then leaves nothing behind."""
    tracefs = os.open("/sys/kernel/tracing", os.O_RDONLY)
    armed = lambda address, size: (b"\xcc" if address in traps() else b"\x90") * size  # noqa: E731
    dead, living = (Traps(tracefs, agent, armed, range(0)) for agent in (NOBODY, os.getpid()))
    place = address_of(_FUNCTION) + _JUMP_BYTES
    while not (attached := attach_where_one_begins(dead, place)):
        place += 1
    os.close(attached)
    attached = living.attach(place, -1)
    try:
        assert dead.remove(dead.name(place)) != ""
        assert living.remove(dead.name(place)) == ""
        assert dead.own() == []
        assert place in traps()
        use()
    finally:
        os.close(attached)
        assert living.remove(living.name(place)) == ""
        os.close(tracefs)
    assert place not in traps()
    healthy()


@pytest.fixture
def traced(alone: None) -> Iterator[list[int]]:
    """Perf events that are kprobes, as tracers hold them, of which the kernel has turned some to jumps."""
    first = address_of(_FUNCTION) + _JUMP_BYTES
    events: list[int] = []
    for place in range(first, first + 80):
        with contextlib.suppress(OSError):  # no instruction begins there
            events.append(perf_event(kprobe_type(), 0, config2=place))
    try:
        wait_for(optimized)
        yield events
    finally:
        while events:
            os.close(events.pop())


@contextlib.contextmanager
def own_traps() -> Iterator[Traps]:
    tracefs = os.open("/sys/kernel/tracing", os.O_RDONLY)
    try:
        yield Traps(tracefs, os.getpid(), read_memory, range(address_of("_stext"), address_of("_etext")))
    finally:
        os.close(tracefs)


@pytest.mark.usefixtures("traced")
def test_none_stands_in_a_jump_of_the_optimizer() -> None:
    """What lies below the jump is no call or jump, and the kernel would make one of the trap, too."""
    jumps = {each + behind for each in optimized() for behind in range(_JUMP_BYTES)}
    code = functions({_FUNCTION})[_FUNCTION]
    with own_traps() as made:
        places = {code.start + each for each in made.places(code)}
        assert places
        assert not places & jumps


def test_a_trap_that_became_a_jump_keeps_its_owner(traced: list[int], test_module: TestModule) -> None:
    """Where one came to share a tracer's kprobe all the same: else whoever comes by runs what was freed."""
    (place, *_) = optimized()
    with own_traps() as made:
        name, attached = made.name(place), made.attach(place, -1)
        while traced:
            os.close(traced.pop())
        wait_for(lambda: place in optimized())  # of the trap alone
        with forged(test_module):
            os.close(attached)
            assert made.remove(name) != ""
            use()
        wait_for(lambda: made.remove(name) == "")
    assert place not in traps()
    healthy()


def test_the_next_agent_takes_out_what_one_left_that_died_with_its_keeper(
    options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, test_module: TestModule
) -> None:
    folders = [tmp_path_factory.mktemp("killed") for _ in range(2)]
    for each in folders:
        each.chmod(0o700)
    agent = RunningAgent(folders[0], **options).__enter__()
    with forged(test_module):
        (keeper,) = keepers()
        os.kill(keeper, signal.SIGSTOP)  # which lets it do nothing between the two
        agent.kill()
        os.kill(keeper, signal.SIGKILL)
        no_keeper_is_left()
        use()
    use()
    left = events()
    assert left
    with RunningAgent(folders[1], **options):
        wait_for(lambda: not left & events(), lambda: (left & events(), events() - left, traps()))
        use()
    assert not events()
    healthy()
