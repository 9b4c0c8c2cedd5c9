"""What the loader attached ends only while that is safe, also where the agent has gone; without a kernel."""

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from krie import AttachType, Program
from krie.errors import SwitchedOffError
from krie.kernel import keeper
from krie.kernel.keeper import TRAMPOLINE
from krie.kernel.standing import place_of
from krie.kernel.switches import ARMED, WAITS, Places
from krie.loader import holding
from krie.loader.holding import Holding
from krie.loader.messages import Failure

LSM = Program(AttachType.LSM, "bpf", "p_bpf")
CLOCK = Program(AttachType.PERF_EVENT, "1000", "p_clock")
STANDING = {place_of(LSM): (TRAMPOLINE, 0x10)}


class Switches:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.why = ""
        self.idle = -1
        self.looked_at: list[Places] = []
        self.in_service = True

    def why_not_attach(self) -> str:
        return self.why

    def agree(self, places: Places) -> bool:
        self.looked_at.append(places)
        return not self.why

    def leave_service(self) -> None:
        self.in_service = False

    def look(self, places: Places, _let_go_of_idle: object) -> tuple[str, str]:
        assert not self.in_service  # it may end while one looks
        self.looked_at.append(places)
        return (WAITS, self.why) if self.why else (ARMED, "")


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switches]:
    made = Switches()
    monkeypatch.setattr(holding, "open_debugfs", lambda: -1)
    monkeypatch.setattr(holding, "open_memory", lambda _: (SimpleNamespace(read=None), -1))
    monkeypatch.setattr(holding, "Switches", lambda *_: made)
    monkeypatch.setattr(holding, "leave_service", made.leave_service)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def held(switches: Switches) -> Holding:
    made = Holding((1, 2, 3), 1 << 20)
    made.begin(STANDING)
    return made


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def are_open(descriptors: Iterable[int]) -> list[bool]:
    return [Path(f"/proc/self/fd/{each}").exists() for each in descriptors]


def test_nothing_is_attached_where_a_switch_was_turned_off_since_the_agent_looked(switches: Switches) -> None:
    held = Holding((1, 2, 3), 1 << 20)
    switches.why = "ftrace is off"
    with pytest.raises(SwitchedOffError, match="attaching probes; ftrace is off") as raised:
        held.begin(STANDING)
    told = Failure(**Failure.of(raised.value).to_json()).error(())
    assert isinstance(told, SwitchedOffError)  # the agent says the same, with the same exit code
    assert str(told) == str(raised.value)
    switches.why = ""
    held.begin(STANDING)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_what_a_keeper_holds_is_closed_at_once(held: Holding, switches: Switches) -> None:
    links = [null(), null()]
    held.note(LSM, links)
    switches.why = "ftrace is off"
    held.kept()
    assert are_open(links) == [False, False]
    held.let_go()
    assert switches.looked_at == []


def test_what_nobody_keeps_stays_until_the_switches_agree(
    held: Holding, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, clock, unwanted = null(), null(), null()
    held.note(LSM, [link, unwanted])
    held.note(CLOCK, [clock])
    switches.why = "ftrace is off"
    held.release(LSM, [unwanted])
    seen: list[list[bool]] = []

    def sleep(_seconds: float) -> None:
        seen.append(are_open([link, unwanted]))
        switches.why = "" if len(seen) == 2 else switches.why

    monkeypatch.setattr(keeper, "time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    monkeypatch.setattr(keeper, "kernel_log", lambda text: None)
    monkeypatch.setattr(keeper, "leave_service", lambda: None)
    held.let_go()
    assert seen == [[True, True]] * 2
    assert are_open([link, unwanted, clock]) == [False, False, True]  # the last one does no harm whenever it ends
    os.close(clock)


def test_what_is_not_wanted_outlives_what_is_kept_where_its_end_would_do_harm(
    held: Holding, switches: Switches
) -> None:
    links = [null(), null(), null()]
    held.note(LSM, links)
    held.release(LSM, links[:1])
    switches.why = "ftrace is off"
    held.release(LSM, links[1:2])
    held.kept()
    assert are_open(links) == [False, True, False]
    switches.why = ""
    held.let_go()
    assert not any(are_open(links))


def test_what_ends_it_at_last_needs_neither_descriptors_nor_threads(
    held: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lowers its limits, or pids.max of its cgroup, does not have it end with all that it holds."""
    links = [null(), null()]
    held.note(LSM, links)

    class Nothing:
        def __getattr__(self, _name: str) -> object:
            raise OSError(errno.EMFILE, "x")

    def start(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(keeper, "socket", Nothing())
    monkeypatch.setattr(Thread, "start", start)
    held.let_go()
    assert are_open(links) == [False, False]
