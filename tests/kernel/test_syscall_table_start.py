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

GATE = 15
"""A vector of the interrupt table that no processor uses."""


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


@pytest.mark.needs("test_module", "perf_event")
@pytest.mark.parametrize("hides", [False, True])
def test_a_pointer_and_a_gate_that_led_to_a_module_before_are_told(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path, hides: bool
) -> None:
    tmp_path.chmod(0o700)
    try:
        gate = address_of("idt_table") + 16 * GATE
    except KeyError:
        lacks("idt_table: its address is not told")
    pointer, to = address_of("udp_seq_ops") + 2 * SLOT, address_of("krie_test_wrapper")
    leading = struct.pack("=2Q", to & 0xFFFF | 0x8E << 40 | (to >> 16 & 0xFFFF) << 48 | 0x10 << 16, to >> 32)
    with ExitStack() as before:
        before.enter_context(test_module.effect("write", pointer, struct.pack("=Q", to).hex()))
        before.enter_context(test_module.effect("write", gate, leading.hex()))
        if hides:
            before.enter_context(test_module.effect("hide list"))
        with RunningAgent(tmp_path, plugins=PLUGIN, agent={"scan_interval_s": 1}) as agent:
            agent.wait(HOOK, count=2)
            agent.wait(ACTIVITY, count=2)
            lines = {line["event"]["where"]: line for line in agent.lines(HOOK)}
            assert len(agent.lines(HOOK)) == 2
            for where, place, rule in (("pointer", "udp_seq_ops+0x10", "SYSCALL004"), ("idt", None, "SYSCALL003")):
                line = lines[where]
                assert of(line, "trigger", "target", "now", "restored") == ("start", "module", f"{to:#x}", False)
                assert line["event"]["owner"] == ("?" if hides else MODULE)
                assert place is None or line["event"]["place"] == place
                assert rules_of(line) == {rule}
            assert lines["idt"]["event"]["number"] == GATE
            hooks = Hooks(agent)
            before.close()
            undone = {line["event"]["where"]: line for line in hooks.expect(2)}
            assert undone["pointer"]["event"]["target"] == "kernel"
