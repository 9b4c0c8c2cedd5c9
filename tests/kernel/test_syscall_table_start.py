"""A system that was hooked before the agent starts is told."""

import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of

from .diversions import MODULE, RARE, SLOT, diversion, number_of
from .lines import of, rules_of
from .syscall_hooks import ACTIVITY, HOOK, PLUGIN, Hooks


@pytest.mark.needs("test_module", "kretprobe")
def test_a_system_that_was_hooked_before_is_told(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    words = [diversion(what, "force", lacks) for what in ("table", "jump", "inline")]
    with (
        test_module.effect(*words[0]),
        test_module.effect(*words[1]),
        test_module.effect(*words[2]),
        RunningAgent(tmp_path, plugins=PLUGIN, agent={"scan_interval_s": 5}) as agent,
    ):
        agent.wait(HOOK, count=3)
        agent.wait(ACTIVITY, count=2)
        lines = {line["event"]["where"]: line for line in agent.lines(HOOK)}
        assert len(agent.lines(HOOK)) == 3
        assert set(lines) == {"table", "dispatch", "handler"}
        for line in lines.values():
            assert of(line, "trigger", "owner", "number") == ("start", MODULE, number_of(RARE))


@pytest.mark.needs("test_module", "perf_event")
def test_a_slot_that_led_to_another_handler_before_is_told(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    """Also where there is no switch to compare with: by the handlers' names."""
    tmp_path.chmod(0o700)
    try:
        slot = address_of("sys_call_table") + SLOT * number_of(RARE)
    except KeyError:
        lacks("sys_call_table: its address is not told")
    words = "write", slot, struct.pack("=Q", address_of("__x64_sys_ustat")).hex()
    with ExitStack() as before:
        before.enter_context(test_module.effect(*words))
        with RunningAgent(tmp_path, plugins=PLUGIN, agent={"scan_interval_s": 1}) as agent:
            agent.wait(HOOK)
            agent.wait(ACTIVITY, count=2)
            (line,) = agent.lines(HOOK)
            assert of(line, "where", "trigger", "abi", "number") == ("table", "start", "x64", number_of(RARE))
            assert of(line, "was_symbol", "symbol", "syscall", "owner") == (
                f"__x64_sys_{RARE}",
                "__x64_sys_ustat",
                RARE,
                "kernel",
            )
            assert rules_of(line) == {"SYSCALL004"}
            hooks = Hooks(agent)
            before.close()
            (line,) = hooks.expect(1)
            assert of(line, "where", "restored", "number") == ("table", True, number_of(RARE))
