"""A Ctrl-C on its terminal ends an agent that guards itself. In guests only.

Before that, kprobes are said to be off. Where they are turned on again without a look at the text, the guest is lost
when the agent ends: the kernel then traces all functions.
"""

import os
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.bpf_objects import Objects, leftovers, objects_of
from krie.testing.module import TestModule
from krie.testing.patience import wait_for

from ..early import Early
from ..test_switches import forged, healthy

pytestmark = pytest.mark.needs("guest", "kprobe", "test_module")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")


def is_restored(line: Line) -> bool:
    return line["event"]["symbol"] == "kprobes_all_disarmed" and ("KPARAM001", "override") in fired(line)


def test_a_ctrl_c_on_its_terminal_ends_it_and_leaves_nothing(
    guarding: RunningAgent, before: Objects, early: Early, test_module: TestModule
) -> None:
    early.close()

    def restored() -> bool:
        """A write that comes between a scan and the look behind it is put right without the rule."""
        with forged(test_module):
            wait_for(lambda: SWITCH.read_text() == "1\n")
        return bool(guarding.lines("runtime_integrity.kernel_parameter", is_restored))

    wait_for(restored)
    told = {"kprobes_off", "probes_forged"}  # two looks each second; whichever comes first puts it right
    guarding.wait("krie.guarded", lambda line: line["event"]["attempt"] in told)
    objects = objects_of(guarding.process.pid, before)
    assert {kind for kind, _ in objects} == {"prog", "map", "link"}
    assert guarding.stop() == 0
    assert leftovers(objects) == frozenset()
    (line,) = guarding.lines("krie.stopped")
    assert line["event"]["reason"] == "SIGINT"
    assert SWITCH.read_text() == "1\n"
    os.close(os.open(SWITCH, os.O_WRONLY))  # nobody minds any more
    healthy()
