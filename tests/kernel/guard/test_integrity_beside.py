"""`krie integrity` works beside an agent that guards itself, and takes nothing of it for an attack."""

import pytest
from krie.testing.agent import RunningAgent

from ..integrity_command import looked

pytestmark = pytest.mark.needs("guest", "kprobe")


def test_beside_an_agent_that_guards_itself(guarding: RunningAgent) -> None:
    before = len(guarding.lines("krie.guarded"))
    look = looked()
    assert list(look.differences()) == []
    assert {each["name"] for each in look.report["checks"] if not each["reference"]} <= {"text"}
    assert look.report["intact"]
    guarding.settle()
    assert guarding.lines("krie.guarded")[before:] == []
