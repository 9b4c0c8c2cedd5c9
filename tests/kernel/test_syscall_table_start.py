"""A system that was hooked before the agent starts is told."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule

from .diversions import MODULE, RARE, diversion, number_of
from .lines import of
from .syscall_hooks import ACTIVITY, HOOK, PLUGIN


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
