"""When kprobes may be removed, and who keeps them until then; without a kernel."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from krie import Alternative, AttachType, Probe, Program, Sensor
from krie.agent.ground import Ground, standing_probes
from krie.kernel.dispatch import FUNCTION as DISPATCHER
from krie.kernel.keeper import BREAKPOINT, IDLE_SLOT, KEY, TRAMPOLINE, Held
from krie.kernel.keeper import TRAP as TRAP_KIND
from krie.kernel.keeping import Keeper
from krie.kernel.standing import standing
from krie.kernel.static_keys import USERS
from krie.kernel.switches import FTRACE_IS_OFF
from krie.kernel.traps import Traps
from krie.loader.launcher import LoadedSet

from ..switched_kernel import DISABLED, ENABLED, FTRACE, IDLE, OTHER, TRAP, VARIABLE, Events, Kernel

NO_TRAPS = Traps(-1, 0, lambda address, size: bytes(size), range(0))


class Fake:
    """A keeper that notes what it is told."""

    def __init__(self, held: Iterable[Held]) -> None:
        self.held = {each.slot: each.address for each in held}
        self.alive = True
        self.gone = False
        self.tgid = 5

    def lives(self) -> bool:
        return self.alive

    def hold(self, held: Held) -> None:
        self.held[held.slot] = held.address

    def close(self, slot: int) -> None:
        self.held.pop(slot, None)
        if self.gone:
            raise BrokenPipeError

    def close_idle(self) -> None:
        self.close(IDLE_SLOT)

    def end(self) -> str:
        self.held.clear()
        return ""


class Agents:
    """What an agent does with its kprobes, and its keepers."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.keepers: list[Fake] = []
        self.ground = Ground(kernel.switch, NO_TRAPS, self.start)  # type: ignore[arg-type] # a fake one

    def start(self, held: Iterable[Held]) -> Fake:
        self.keepers.append(Fake(held))
        return self.keepers[-1]

    def attach(self, place: int = TRAP) -> int:
        descriptor = os.open("/dev/null", os.O_RDONLY)
        self.ground.hold(descriptor, place)
        return descriptor


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


@pytest.fixture
def agent(kernel: Kernel) -> Agents:
    return Agents(kernel)


def test_without_kprobes_nobody_keeps_them(agent: Agents) -> None:
    agent.ground.start()
    assert agent.keepers == []
    assert agent.ground.tick() == []
    agent.ground.end()


def test_the_keeper_holds_what_the_agent_holds(agent: Agents) -> None:
    first = agent.attach()
    agent.ground.start()
    (keeper,) = agent.keepers
    second = agent.attach(OTHER)
    assert sorted(keeper.held.values()) == [TRAP, OTHER]
    agent.ground.release(first)
    assert list(keeper.held.values()) == [OTHER]
    assert not is_open(first)
    keeper.alive = False
    assert agent.ground.tick() == []
    assert [list(each.held.values()) for each in agent.keepers] == [[OTHER], [OTHER]]
    os.close(second)


def named(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("lies", [False, True])
def test_who_keeps_a_link_gets_the_one_in_its_place(agent: Agents, kernel: Kernel, *, lies: bool) -> None:
    before = set(os.listdir("/proc/self/fd"))
    link = agent.attach(OTHER)
    agent.ground.start()
    (keeper,) = agent.keepers
    (first,) = keeper.held
    new = os.open("/dev/zero", os.O_RDONLY)
    if lies:  # meanwhile
        kernel.memory[DISABLED] = b"\1"
    agent.ground.replace(link, new)
    assert named(link) == "/dev/zero"
    assert not os.get_inheritable(link)
    assert (first in keeper.held) is lies
    kernel.memory[DISABLED] = bytes(4)
    agent.ground.tick()
    assert list(keeper.held.values()) == [OTHER]
    assert first not in keeper.held
    os.close(link)
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_nobody_keeps_is_replaced(agent: Agents) -> None:
    agent.ground.start()
    link, new = os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)
    agent.ground.replace(link, new)
    assert named(link) == "/dev/zero"
    assert not is_open(new)
    assert agent.keepers == []
    os.close(link)


def test_a_switch_that_lies_keeps_everything_until_it_does_not(
    agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    one = agent.attach()
    agent.ground.start()
    kernel.lists(FTRACE)
    kernel.forge()
    agent.ground.release(one)
    assert is_open(one)
    assert len(agent.keepers[0].held) == 1
    for count in (1, 0):  # told once
        assert [fields["attempt"] for _, fields in agent.ground.tick()] == ["probes_forged"] * count
    assert "restart this machine" in caplog.text
    assert "nothing keeps their filter" in agent.ground.obstacle()
    kernel.memory[VARIABLE] = b"\0"
    assert agent.ground.tick() == []
    assert not is_open(one)
    assert agent.keepers[0].held == {}


def test_while_ftrace_is_off_everything_stays(agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """Honestly off: nothing is forged, and nothing turned on."""
    one = agent.attach()
    agent.ground.start()
    kernel.turn_ftrace_off()
    agent.ground.release(one)
    assert is_open(one)
    assert agent.ground.tick() == []
    assert FTRACE_IS_OFF in agent.ground.obstacle()
    assert caplog.text.count("no probe is moved or removed while ftrace is off") == 1
    assert len(agent.keepers[0].held) == 1
    kernel.memory[ENABLED] = b"\1"
    assert agent.ground.tick() == []
    assert not is_open(one)
    assert kernel.ftrace_file.read_bytes() == b"0\n"


@pytest.mark.parametrize("off", [VARIABLE, ENABLED, DISABLED])
def test_no_idle_kprobe_is_opened_while_something_is_off(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    """Whether the idle function is called already cannot be known without ftrace."""
    opened: list[int] = []

    def opens() -> int:
        opened.append(os.open("/dev/null", os.O_RDONLY))
        return opened[-1]

    monkeypatch.setattr(kernel.switch, "open_idle", opens)
    before = kernel.memory[off]
    kernel.memory[off] = struct.pack("=i", off != ENABLED)
    ground = Agents(kernel).ground
    assert opened == []
    kernel.memory[off] = before
    ground.tick()
    assert len(opened) == 1
    ground.end()


def test_who_has_gone_lets_go_of_nothing(agent: Agents) -> None:
    one = agent.attach()
    agent.ground.start()
    agent.keepers[0].alive = False
    agent.ground.release(one)
    assert is_open(one)
    agent.ground.tick()  # another one is started
    assert list(agent.keepers[1].held.values()) == [TRAP]
    agent.ground.tick()
    assert not is_open(one)
    assert agent.keepers[1].held == {}


def test_without_any_keeper_probes_are_closed_behind_a_look(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_held: Iterable[Held]) -> Keeper:
        raise OSError(12, "no memory")

    events = Events()
    ground = Ground(kernel.switch, cast("Traps", events), refuse)
    one, two, three = (os.open("/dev/null", os.O_RDONLY) for _ in range(3))
    for each, place, kind in ((one, TRAP, BREAKPOINT), (two, OTHER, TRAP_KIND), (three, IDLE, TRAP_KIND)):
        ground.hold(each, place, kind)
        events.names += [events.name(place)] if kind == TRAP_KIND else []
    ground.start()
    ground.release(one)
    ground.release(two)
    assert not is_open(one)
    assert not is_open(two)
    ground.tick()
    assert events.names == [events.name(IDLE)]
    events.why = "it breaks"
    ground.release(three)
    ground.tick()
    assert events.own()
    ground.end()
    assert "stays in tracefs (3000): it breaks" in caplog.text
    events.why = ""
    ground.tick()
    assert not events.own()


def test_what_is_put_right_is_told(agent: Agents, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    one = agent.attach()
    agent.ground.start()
    for _ in range(2):
        kernel.forge()
        assert [fields["attempt"] for _, fields in agent.ground.tick()] == ["probes_forged"]
        assert "it is put right" in caplog.text
    assert agent.ground.tick() == []
    os.close(one)


def test_that_something_is_off_is_known_once_each_time(agent: Agents, kernel: Kernel) -> None:
    assert not agent.ground.turned_off()
    for variable, value in ((VARIABLE, b"\1"), (ENABLED, bytes(4)), (DISABLED, b"\1")):
        before = kernel.memory[variable]
        kernel.memory[variable] = value
        assert [agent.ground.turned_off() for _ in range(2)] == [True, False]
        kernel.memory[variable] = before
        assert not agent.ground.turned_off()


def test_the_end_waits_where_nobody_would_keep_them(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_held: Iterable[Held]) -> Keeper:
        raise OSError(12, "no memory")

    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            kernel.memory[VARIABLE] = b"\0"

    ground = Ground(kernel.switch, NO_TRAPS, refuse)
    one = os.open("/dev/null", os.O_RDONLY)
    ground.hold(one, TRAP)
    ground.start()
    assert "nobody keeps probes if this agent is killed" in caplog.text
    kernel.lists(FTRACE)
    kernel.forge()
    monkeypatch.setattr("krie.agent.ground.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    ground.settle()
    assert 1.0 in waited
    assert not kernel.switch.off()
    ground.end()
    os.close(one)


def test_every_way_to_change_the_text_is_held() -> None:
    """A kind of attachment that is forgotten here ends with the agent, whatever the kernel's switches are."""
    programs = tuple(Program(each, "vfs_read", f"p_{each}") for each in AttachType)
    sensor = Sensor("p", "1", probes=(Probe("all", None, (Alternative("all", programs),)),))
    links = {f"link:{each.label}": (number,) for number, each in enumerate(programs)}
    call = next(each for each in programs if each.attach is AttachType.SYSCALL)
    links[f"link:{DISPATCHER}-0"] = links.pop(f"link:{call.label}")
    keys = {each: 0x100 for each in programs if each.attach in USERS}
    loaded = SimpleNamespace(
        descriptors=links, loaded=SimpleNamespace(attached=[each.label for each in programs], chosen={"p.all": "all"})
    )
    held = {
        programs[link].attach: kind
        for link, _, kind in standing_probes([sensor], cast("LoadedSet", loaded), standing(programs, keys))
    }
    trampolines = {AttachType.LSM, AttachType.FMOD_RET, AttachType.FENTRY}
    assert set(held) == set(AttachType) - {AttachType.PERF_EVENT}
    assert {each for each, kind in held.items() if kind == KEY} == USERS
    assert {each for each, kind in held.items() if kind == TRAMPOLINE} == trampolines
