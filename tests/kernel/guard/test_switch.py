"""The switch of kprobes stays on where an agent guards itself. In guests only."""

import os
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCH = Path("/sys/kernel/debug/kprobes/enabled")


def test_the_switch_of_kprobes_is_not_opened_for_writing(guarding: RunningAgent) -> None:
    assert SWITCH.read_text() == "1\n"
    with pytest.raises(PermissionError):
        os.open(SWITCH, os.O_WRONLY)
    assert SWITCH.read_text() == "1\n"
    attempts(guarding, "kprobes_switched")
