"""Plugins that watch the same function: each sees each call, with the others and without them."""

from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.victims import Victims

from . import example

pytestmark = pytest.mark.needs("guest", "kprobe")
TARGET, CALLS = "commit_creds", 20
SOURCE = example.seen("example_f", "struct pt_regs *ctx")
BY_OTHERS = {"shared_by_three": ("smep_smap", "cfi"), "shared_by_two": ("cfi",), "shared_by_none": ()}
"""By name of the unit, the plugins of ours that have a probe there, too."""
SETTINGS = {"smep_smap": {"traps": False}, "cfi": {}}
CHANGES = f"""
for _ in range({CALLS}):
    os.setgroups([0])  # commits whatever there was before
"""


def checked(agent: RunningAgent) -> int:
    """Calls that cfi looked at."""
    return sum(line["event"]["checks"] for line in agent.lines("cfi.activity"))


@pytest.mark.parametrize("name", BY_OTHERS)
def test_a_third_partys_plugin_at_a_function_that_is_watched(
    alone: None, tmp_path: Path, victims: Victims, name: str
) -> None:
    tmp_path.chmod(0o700)
    others = BY_OTHERS[name]
    plugin = example.write(tmp_path / "plugin", {"seen": ("kprobe", TARGET, "example_f", 0)}, SOURCE)
    plugins = {"example": {}, **{each: SETTINGS[each] for each in others}}
    with RunningAgent(
        tmp_path, plugins=plugins, plugin_folders=[plugin], agent={"scan_interval_s": 3, "user_burst": 10_000}
    ) as agent:
        if "cfi" in others:
            agent.wait("cfi.lock")
        before = checked(agent)
        victims.run(CHANGES)
        assert len(agent.wait("example.seen", victims.mine, count=CALLS)) >= CALLS
        if "cfi" in others:
            agent.wait("cfi.activity", lambda _: checked(agent) >= before + CALLS)
            assert agent.lines("cfi.caller") == []
        if "smep_smap" in others:
            (activity, *_) = agent.wait("smep_smap.activity")
            assert activity["event"]["checks"] > 0
