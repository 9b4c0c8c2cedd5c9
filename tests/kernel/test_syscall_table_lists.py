"""Functions that come to the kernel's lists after the start, and go again, are told with whose they are."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule

from .diversions import MODULE
from .lines import of, rules_of
from .syscall_hooks import ACTIVITY

LISTED, CODE = "syscall_table.listed", "syscall_table.code"
COMMANDS = {"notify": "module_notify_list", "list filter": "hooks_ipv4[0]", "list format": "binary formats"}
PLUGIN = {"syscall_table": {"wrapped": [], "shipped_pointers": False}}


@pytest.fixture(scope="module")
def walking(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    with RunningAgent(folder, plugins=PLUGIN, agent={"scan_interval_s": 3}) as agent:
        looked(agent)
        yield agent


def looked(agent: RunningAgent) -> None:
    """A look that began after this call has come to its end: one that is under way ends before it."""
    agent.settle()
    agent.wait(ACTIVITY, _compared, count=len(agent.lines(ACTIVITY, _compared)) + 2)


def _compared(line: Line) -> bool:
    return bool(line["event"]["text_bytes"])


@pytest.mark.needs("test_module", "guest")
def test_functions_that_come_to_lists_and_go(walking: RunningAgent, test_module: TestModule) -> None:
    looked(walking)
    before = len(walking.lines(LISTED))
    with ExitStack() as stack:
        for command in COMMANDS:
            stack.enter_context(test_module.effect(command))
        walking.wait(LISTED, count=before + len(COMMANDS))
        looked(walking)
        came = walking.lines(LISTED)[before:]
    for line in came:
        assert of(line, "came", "owner") == (True, MODULE)
        assert line["event"]["symbol"].endswith(f" [{MODULE}]")
        assert rules_of(line) == set()
    assert sorted(line["event"]["list"] for line in came) == sorted(COMMANDS.values())
    walking.wait(LISTED, count=before + 2 * len(COMMANDS))
    looked(walking)
    gone = walking.lines(LISTED)[before + len(COMMANDS) :]
    assert sorted(of(line, "list", "came", "owner") for line in gone) == sorted(
        (name, False, MODULE) for name in COMMANDS.values()
    )
    assert walking.lines(CODE) == []
