"""Functions that come to the kernel's lists after the start, and go again, are told with whose they are."""

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest
from krie import Btf
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule, address_of

from .diversions import MODULE
from .kernel_memory import read_memory
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
    before, code_before = len(walking.lines(LISTED)), len(walking.lines(CODE))
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
    assert len(walking.lines(CODE)) == code_before


@pytest.mark.needs("test_module", "guest")
def test_a_function_that_security_modules_are_asked_by(
    walking: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    """A module's, in front of those of the kernel's own that are asked whether the clock may be set."""
    at = Btf().offset("security_hook_heads", "settime")
    if at is None:
        lacks("lsm_lists: security modules are called by static calls")
    looked(walking)
    head, hook = address_of("security_hook_heads") + at, address_of("krie_test_hook")
    before, code_before = len(walking.lines(LISTED)), len(walking.lines(CODE))
    with (
        test_module.effect("write", hook, read_memory(head, 8).hex()),
        test_module.effect("write", head, struct.pack("=Q", hook).hex()),
    ):
        walking.wait(LISTED, count=before + 1)
        looked(walking)
        (line,) = walking.lines(LISTED)[before:]
        assert of(line, "list", "came", "symbol") == ("security hooks", True, f"permit+0x0 [{MODULE}]")
        (code,) = walking.lines(CODE)[code_before:]  # the head is read-only data
        assert of(code, "section", "restored") == ("rodata", False)
    walking.wait(LISTED, count=before + 2)
    looked(walking)
    (line,) = walking.lines(LISTED)[before + 1 :]
    assert of(line, "list", "came", "owner") == ("security hooks", False, MODULE)
