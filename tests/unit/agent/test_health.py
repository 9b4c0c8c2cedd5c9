"""Losses are counted exactly; probes are alive only when their canary arrived."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from krie import Alternative, AttachType, CannotProve, Probe, Program, Sensor
from krie.agent.health import Canaries, Losses, ProbeHealth, health_facts
from krie.events.agent import AGENT_EVENTS
from krie.events.event import EventTypes
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.ptrace import Ptrace

TYPES = EventTypes((*AGENT_EVENTS, BpfCall, Ptrace))
KINDS = (BpfCall.KIND, Ptrace.KIND)


class Array:
    """A per-CPU array map of two CPUs."""

    def __init__(self, *values: tuple[int, ...]) -> None:
        self.values = list(values)

    def array(self) -> Iterator[bytes]:
        for value in self.values:
            yield struct.pack("=4Q", *value, *(0,) * (4 - len(value))) + bytes(32)


def test_a_canary_that_cannot_run_silences_nothing() -> None:
    """A child cannot be started, for one: of a probe that was proven before, nobody knows more then."""
    runs = Array((1,))
    ways: list[Callable[[], None]] = []
    probe = Probe("x", None, (Alternative("a", (Program(AttachType.KPROBE, "f", "s_f"),)),), lambda: ways[-1]())
    sensors = [Sensor("s", "1", (probe,))]

    def arrives() -> None:
        runs.values = [(runs.values[0][0] + 1,)]

    def fails() -> None:
        raise OSError(24, "Too many open files")

    health = ProbeHealth(sensors, {"s.x": "a"}, {}, ("s_f",), runs, Canaries(sensors, lambda *_: None))  # type: ignore[arg-type]
    states = []
    for way in (fails, arrives, fails, arrives, lambda: None):
        ways.append(way)
        health.check()
        states.append((health.reports[0].state, "Too many" in health.reports[0].reason))
    assert states == [("silent", False), ("alive", False), ("attached", True), ("alive", False), ("silent", False)]


def test_a_canary_that_the_kernel_left_out_silences_nothing() -> None:
    """Whoever causes that would else have his own acts forgiven; but what is not even left out is silent."""
    arrived, missed, other = [0], [0], [0]
    acts: list[Callable[[], None]] = []
    programs = tuple(Program(AttachType.KPROBE, each, f"s_{each}") for each in ("f", "g"))
    probe = Probe("x", None, (Alternative("a", programs),), lambda: acts[-1]())
    sensors = [Sensor("s", "1", (probe,))]

    class Runs:
        def array(self) -> Iterator[bytes]:
            yield from (struct.pack("=Q", arrived[0]), struct.pack("=Q", other[0]))

    def both() -> None:
        arrived[0], other[0] = arrived[0] + 1, other[0] + 1

    def left_out() -> None:
        missed[0] += 1
        other[0] += 1

    def one_silent() -> None:  # the second one neither ran nor was left out
        missed[0] += 1

    def once_more() -> None:
        acts.append(both)  # the first run of it is left out, the next one is not

    canaries = Canaries(sensors, lambda *_: None)
    health = ProbeHealth(
        sensors,
        {"s.x": "a"},
        {},
        ("s_f", "s_g"),
        Runs(),  # type: ignore[arg-type]
        canaries,
        left_out=lambda: {"s_f": missed[0]},
    )
    states = []
    for act in (both, left_out, left_out, once_more, one_silent, left_out, both, lambda: None):
        acts.append(act)
        health.check()
        states.append(health.reports[0].state)
    assert states == ["alive", "attached", "attached", "alive", "silent", "silent", "alive", "silent"]


def test_a_canary_runs_again_on_other_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was preempted amid a program stays on his: there, it is left out again and again."""
    on, runs = [{0, 1, 2}], [0]
    monkeypatch.setattr("krie.agent.health.os.sched_getaffinity", lambda _: on[-1])
    monkeypatch.setattr("krie.agent.health.os.sched_setaffinity", lambda _, cpus: on.append(set(cpus)))
    one = Probe("x", None, (Alternative("a", (Program(AttachType.KPROBE, "f", "s_f"),)),), lambda: run())

    def run() -> None:
        runs[0] += (len(on) == 1 and not runs[0]) or on[-1] == {2}

    class Runs:
        def array(self) -> Iterator[bytes]:
            yield struct.pack("=Q", runs[0])

    sensors = [Sensor("s", "1", (one,))]
    health = ProbeHealth(sensors, {"s.x": "a"}, {}, ("s_f",), Runs(), Canaries(sensors, lambda *_: None))  # type: ignore[arg-type]
    health.check()
    assert (health.reports[0].state, on) == ("alive", [{0, 1, 2}])
    assert health.check() == []
    assert {2} in on
    assert on[-1] == {0, 1, 2}


def losses(counts: Array) -> Losses:
    return Losses(TYPES, KINDS, counts)  # type: ignore[arg-type]


def test_what_did_not_fit_is_told_once_and_then_what_was_added() -> None:
    counts = Array((10, 3), (5, 0))
    found = losses(counts)
    (first,) = found.look({BpfCall.KIND: 7, Ptrace.KIND: 5}, 0, 0, 0, drained=True)
    assert (first.kind, first.cause, first.count, first.total) == ("runtime_integrity.bpf", "ring_full", 3, 3)
    assert list(found.look({BpfCall.KIND: 7, Ptrace.KIND: 5}, 0, 0, 0, drained=True)) == []
    counts.values[0] = (14, 5)
    (second,) = found.look({BpfCall.KIND: 9, Ptrace.KIND: 5}, 0, 0, 0, drained=True)
    assert (second.count, second.total, found.total) == (2, 5, 5)


def test_written_records_must_have_come_by_the_next_look() -> None:
    found = losses(Array((10, 0), (0, 0)))
    assert list(found.look({BpfCall.KIND: 4}, 0, 0, 0, drained=True)) == []  # six may still be under way
    (loss,) = found.look({BpfCall.KIND: 8}, 0, 0, 0, drained=True)
    assert (loss.kind, loss.cause, loss.count) == ("runtime_integrity.bpf", "missing", 2)


def test_a_backlog_is_no_loss() -> None:
    found = losses(Array((10, 0), (0, 0)))
    list(found.look({BpfCall.KIND: 1}, 0, 0, 0, drained=False))
    assert list(found.look({BpfCall.KIND: 4}, 0, 0, 0, drained=False)) == []  # two looks later, and still in the ring
    assert list(found.look({BpfCall.KIND: 10}, 0, 0, 0, drained=True)) == []
    assert found.total == 0


def test_a_broken_record_is_not_missing_too() -> None:
    found = losses(Array((10, 0), (0, 0)))
    list(found.look({BpfCall.KIND: 9}, 1, 0, 0, drained=True))
    assert list(found.look({BpfCall.KIND: 9}, 1, 0, 0, drained=True)) == []
    assert found.total == 1


def test_lost_lines_count_too() -> None:
    found = list(losses(Array((0, 0), (0, 0))).look({}, 0, 4, 2, drained=True))
    assert [(each.kind, each.cause, each.count) for each in found] == [
        ("", "journal_full", 4),
        ("", "journal_failed", 2),
    ]


def probe(name: str, canary: Any) -> Probe:
    program = Program(AttachType.RAW_TRACEPOINT, "x", f"s_{name}")
    return Probe(name, None, (Alternative("raw", (program,)),), canary)


def test_attached_is_not_alive() -> None:
    runs = Array((0,), (0,), (0,))

    def heard() -> None:
        runs.values[0] = (runs.values[0][0] + 1,)

    def raises() -> None:
        raise OSError("refused")

    failed: list[str] = []
    sensor = Sensor(
        "s", "1", (probe("a", heard), probe("b", lambda: None), probe("c", None), probe("d", raises), probe("e", heard))
    )
    chosen = {f"s.{name}": "raw" for name in "abcd"}
    canaries = Canaries([sensor], lambda name, _: failed.append(name))
    reasons = {f"s.{name}": {"raw": "EPERM"} for name in "abcde"}
    health = ProbeHealth([sensor], chosen, reasons, ("s_a", "s_b", "s_d"), runs, canaries)  # type: ignore[arg-type]
    changed = {each.name: each.state for each in health.check()}
    assert changed == {"s.a": "alive", "s.b": "silent", "s.c": "attached", "s.d": "silent"}
    assert failed == ["s.d"]
    assert health.raised == {"s.d": "refused"}
    assert health.check() == []
    assert [each.state for each in health.reports] == ["alive", "silent", "attached", "silent", "missing"]
    assert health.reports[4].reason == "raw: EPERM"
    assert health_facts(3, 4, 2, health.reports, ["p"], ["status", "bundle"]) == {
        "lost": 3,
        "missed": 4,
        "policy_failures": 2,
        "probes_not_alive": ["s.b", "s.d", "s.e"],
        "degraded": ["p"],
        "engine_stands_in": False,
        "services": ["bundle", "status"],
    }
    assert health_facts(0, 0, 0, [], [], [], stands_in=True)["engine_stands_in"] is True


def test_a_canary_that_the_kernel_refuses_is_no_silence() -> None:
    """Such as `kernel.yama.ptrace_scope` 3 and `kernel.modules_disabled` demand, which nobody resets."""
    heard, refuses = [True], [False]
    runs = Array((0,))

    def canary() -> None:
        runs.values[0] = (runs.values[0][0] + heard[0],)
        if refuses[0]:
            raise CannotProve("the kernel refuses")

    sensor = Sensor("s", "1", (probe("a", canary),))
    health = ProbeHealth([sensor], {"s.a": "raw"}, {}, ("s_a",), runs, Canaries([sensor], lambda *_: None))  # type: ignore[arg-type]

    def state() -> tuple[str, str]:
        health.check()
        return health.reports[0].state, health.reports[0].reason

    assert state() == ("alive", "")
    refuses[0] = True
    assert state() == ("alive", "")  # it was heard nevertheless
    heard[0] = False
    assert state() == ("attached", "the kernel refuses")
    assert (health.silent(), health.raised) == ({}, {})
    refuses[0] = False
    assert state() == ("silent", "its canary did not arrive")


def test_a_canary_that_raised_once_and_no_more_is_well() -> None:
    fails = [True]

    def canary() -> None:
        if fails.pop():
            fails.append(False)
            raise OSError("once")

    canaries = Canaries([Sensor("s", "1", (probe("a", canary),))], lambda *_: None)
    canaries.run(["s.a"])
    assert canaries.raised == {"s.a": "once"}
    canaries.run(["s.a"])
    assert canaries.raised == {}
