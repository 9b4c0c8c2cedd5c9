"""The agent that locks functions and judges acts: one for all tests here."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent

from ..stage import BareSetup, Stage


@pytest.fixture(params=[10, pytest.param(100, marks=pytest.mark.slow)])
def rounds(request: pytest.FixtureRequest) -> int:
    """How often each attack is made."""
    return int(request.param)


@pytest.fixture
def locked(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> RunningAgent:
    """On the stage."""
    return stage.given("cfi", lambda stack: _made(stack, tmp_path_factory.mktemp)).agent


def _made(stack: ExitStack, new_folder: Callable[[str], Path]) -> BareSetup:
    folder = new_folder("locked")
    folder.chmod(0o700)
    agent = RunningAgent(
        folder,
        plugins={"cfi": {"mode": "enforce", "required": True, "acts": True}, "smep_smap": {"traps": False}},
        agent={"scan_interval_s": 5, "user_burst": 10_000, "user_rate": 10_000},  # each attack is to be told
        enforcement={"guard": False, "breaker_processes": 10_000},
    )
    stack.enter_context(agent)
    agent.wait("cfi.lock")  # where this build has no lock file, nothing is locked before
    return BareSetup(agent)
