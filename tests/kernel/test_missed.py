"""The kernel's own count of the runs that it left out. In guests only, where kprobes are."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
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
