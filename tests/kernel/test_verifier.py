"""What a start costs in the verifier: a count, and so the same on a slow machine."""

from collections.abc import Callable
from typing import NoReturn

from krie.testing.agent import RunningAgent

from .verified import WHICH, bars, verified_by_program


def test_the_verifier_looks_at_few_instructions(agent: RunningAgent, lacks: Callable[[str], NoReturn]) -> None:
    found = verified_by_program(agent.process.pid)
    if not found:
        lacks("verified_insns: it does not say how many instructions it looked at")
    all_, each = bars()
    assert max(found.values()) <= each, WHICH
    assert sum(found.values()) <= all_, WHICH
