"""What the kernel calls the programs of an agent: a list of programs tells them apart."""

import os
from collections import Counter

from krie.kernel import bpf
from krie.testing.agent import RunningAgent

from . import own_bpf
from .descriptors import descriptions


def _name(number: int) -> str:
    descriptor = own_bpf.call(own_bpf.GET_PROG, number)
    try:
        return bpf.object_name(descriptor)
    finally:
        os.close(descriptor)


def test_no_two_have_one_name(agent: RunningAgent) -> None:
    held = {int(each["prog_id"]) for each in descriptions(agent.process.pid).values() if "prog_id" in each}
    names = Counter(map(_name, held))
    assert len(names) > 10
    assert [name for name, count in names.items() if count > 1] == []
