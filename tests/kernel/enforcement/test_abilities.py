"""An agent that enforces says what it can do. In guests only."""

import pytest
from krie.events.operations import OPERATIONS
from krie.testing.agent import RunningAgent

from .answers import status

pytestmark = pytest.mark.needs("guest", "kprobe")


def test_everything_that_is_guarded_can_be_refused(enforcing: RunningAgent) -> None:
    answer = status(enforcing)
    assert answer["guarded_operations"] == {"refused": len(OPERATIONS), "of": len(OPERATIONS)}
    assert answer["modes"] == {"runtime_integrity": "enforce", "example": "enforce"}
    states = {each["name"]: each["state"] for each in answer["probes"]}
    # No canary can prove these.
    unproven = {name for name in states if name.startswith(("runtime_integrity.look_", "runtime_integrity.seccomp_"))}
    assert {states[name] for name in states.keys() - unproven} == {"alive"}
    assert {states[name] for name in unproven} == {"attached"}
