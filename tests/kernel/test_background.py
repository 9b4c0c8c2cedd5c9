"""Records that nobody waits for wake nobody; the next one that somebody does wait for wakes all the same."""

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from krie import Alternative, AttachType, Doc, Event, Probe, Program, Sensor
from krie.events.event import EventTypes
from krie.events.wire import U64
from krie.kernel.ring import Ring
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork, process_sensor

from . import example
from .loading import loaded, sending

SOURCE = example.seen("example_timed")
_STRANGER = 0x7FFFFFFF  # no process: whatever this one does is told


@dataclass(frozen=True, slots=True)
class Timed(Event):
    """A process set a timer."""

    KIND: ClassVar[int] = 0x9001
    NAME: ClassVar[str] = "example.seen"

    count: Annotated[U64, Doc("a number")]


TYPES = EventTypes((Timed, ProcessExec, ProcessExit, ProcessFork))


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    source = tmp_path_factory.mktemp("background") / "example.bpf.c"
    source.write_text(SOURCE)
    program = Program(AttachType.RAW_TRACEPOINT, "itimer_state", "example_timed")
    probe = Probe("timed", Timed, (Alternative("raw_tracepoint", (program,)),), None)
    sensor = Sensor("example", "1", (probe,), (Timed,), (Path(source),))
    with loaded(process_sensor(), sensor) as (_, maps), sending(maps, _STRANGER) as ring:
        yield ring


def test_what_somebody_waits_for_wakes_behind_what_nobody_waits_for(ring: Ring) -> None:
    with select.epoll() as poll:
        ring.wait_on(poll)
        slept = 0
        for _ in range(100):
            while ring.read():
                pass
            poll.poll(0)
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            if poll.poll(0):
                continue  # one of many wakes all the same; and others of this machine may have done something
            slept += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert poll.poll(30), "nobody was woken"
            events = [TYPES.decode(raw) for raw in ring.read()]
            (child,) = {
                each.child_tgid for each in events if isinstance(each, ProcessFork) and each.tgid == os.getpid()
            }
            kinds = [type(each) for each in events if each.tgid in (os.getpid(), child)]
            assert kinds == [ProcessFork, ProcessExec, ProcessExit, Timed]
        assert slept


def test_many_of_them_wake(ring: Ring) -> None:
    with select.epoll() as poll:
        ring.wait_on(poll)
        woken = 0
        for _ in range(64 * (os.cpu_count() or 1)):
            while ring.read():
                pass
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            woken += bool(poll.poll(0))
        assert woken


def test_only_records_that_are_waited_for_have_a_whole_header(ring: Ring) -> None:
    while ring.read():
        pass
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    mine = [each for each in map(TYPES.decode, ring.read()) if each.tgid == os.getpid()]
    here = os.stat("/proc/self/ns/mnt").st_ino
    assert {type(each): each.mnt_ns for each in mine} == {ProcessFork: 0, Timed: here}
