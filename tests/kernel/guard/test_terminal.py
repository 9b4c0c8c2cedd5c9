"""A Ctrl-C on its terminal ends an agent that guards itself. In guests only."""

import os
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.bpf_objects import Objects, leftovers, objects_of

from ..early import Early

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")


def test_a_ctrl_c_on_its_terminal_ends_it_and_leaves_nothing(
    guarding: RunningAgent, before: Objects, early: Early
) -> None:
    early.close()
    objects = objects_of(guarding.process.pid, before)
    assert {kind for kind, _ in objects} == {"prog", "map", "link"}
    assert guarding.stop() == 0
    assert leftovers(objects) == frozenset()
    (line,) = guarding.lines("krie.stopped")
    assert line["event"]["reason"] == "SIGINT"
    assert SWITCH.read_text() == "1\n"
    os.close(os.open(SWITCH, os.O_WRONLY))  # nobody minds any more
