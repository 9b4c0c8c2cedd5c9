"""The kernel's own count of the runs that it left out. In guests only, where kprobes are."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie import Alternative, Probe, Sensor
from krie.agent.health import Canaries, ProbeHealth
from krie.agent.missed import MissedRuns
from krie.kernel import bpf
from krie.kernel.attach import Places, attach, load
from krie.kernel.counting import returning
from krie.kernel.program import AttachType, Program

pytestmark = pytest.mark.needs("guest", "kprobe")
IN_A_CHANGE = "htab_map_update_elem"
"""Runs while bpf(2) changes a hash: kprobes are left out there."""
TIMES = 5


@pytest.fixture
def left_out() -> Iterator[int]:
    places = Places(Path("/nowhere"), None, lambda _: 0)
    program = Program(AttachType.KPROBE, IN_A_CHANGE, "krie_left_out")
    descriptor = load(program, returning(0), places)
    links = attach(program, descriptor, places)
    yield descriptor
    for each in (*links, descriptor):
        os.close(each)


def test_kprobes_are_left_out_while_maps_are_changed(left_out: int, lacks: Callable[[str], NoReturn]) -> None:
    runs = MissedRuns({"krie_left_out": left_out})
    changed = bpf.map_create(bpf.MapType.HASH, 4, 4, 8, "krie_changed")
    try:
        for number in range(TIMES):
            bpf.update(changed, number.to_bytes(4, "little"), bytes(4))
    finally:
        os.close(changed)
    told = list(runs.look())
    if not told:
        lacks("missed_kprobes: this kernel does not count the kprobes' programs that it leaves out")
    ((program, count),) = [(each.program, each.count) for each in told]
    assert program == "krie_left_out"
    assert count >= TIMES  # others change maps too


class _Heard:
    """The map that counts, of one program: how often a canary arrived."""

    def __init__(self) -> None:
        self.times = 0

    def array(self) -> Iterator[bytes]:
        yield struct.pack("=Q", self.times)


def test_who_has_a_canary_left_out_silences_no_probe(left_out: int, lacks: Callable[[str], NoReturn]) -> None:
    """It runs amid a map's change, where the kernel leaves all kprobes out, and counts that."""
    missed, heard = MissedRuns({"krie_left_out": left_out}), _Heard()
    changed = bpf.map_create(bpf.MapType.HASH, 4, 4, 8, "krie_changed")

    def arrives() -> None:
        heard.times += 1

    def is_left_out() -> None:
        bpf.update(changed, bytes(4), bytes(4))

    acts: list[Callable[[], None]] = []
    way = Alternative("kprobe", (Program(AttachType.KPROBE, IN_A_CHANGE, "krie_left_out"),))
    sensors = [Sensor("s", "1", (Probe("x", None, (way,), lambda: acts[-1]()),))]
    canaries = Canaries(sensors, lambda *_: None)
    health = ProbeHealth(sensors, {"s.x": "kprobe"}, {}, ("krie_left_out",), heard, canaries, left_out=missed.now)  # type: ignore[arg-type]

    def state(act: Callable[[], None]) -> str:
        acts.append(act)
        health.check()
        return health.reports[0].state

    try:
        is_left_out()
        if not missed.now()["krie_left_out"]:
            lacks("missed_kprobes: this kernel does not count the kprobes' programs that it leaves out")
        cpus = os.sched_getaffinity(0)
        assert [state(arrives), state(is_left_out), health.silent(), state(arrives)] == [
            "alive",
            "attached",
            {},
            "alive",
        ]
        assert os.sched_getaffinity(0) == cpus
    finally:
        os.close(changed)
