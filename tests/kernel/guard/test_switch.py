"""The switch of kprobes stays on where an agent guards itself. In guests only."""

import os
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")


def test_the_switch_of_kprobes_is_not_opened_for_writing(guarding: RunningAgent) -> None:
    assert SWITCH.read_text() == "1\n"
    with pytest.raises(PermissionError):
        os.open(SWITCH, os.O_WRONLY)
    assert SWITCH.read_text() == "1\n"
    attempts(guarding, "kprobes_switched")


@pytest.mark.needs("test_module")
def test_kprobes_that_are_off_are_seen(guarding: RunningAgent, test_module: TestModule) -> None:
    told = {"kprobes_off", "probes_forged"}  # two looks each second; whichever comes first puts it right
    with test_module.effect("write", address_of("kprobes_all_disarmed"), b"\1".hex()):
        guarding.wait("krie.guarded", lambda line: line["event"]["attempt"] in told)
    assert SWITCH.read_text() == "1\n"
