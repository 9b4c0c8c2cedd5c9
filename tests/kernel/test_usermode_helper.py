"""What the kernel starts by itself is known, and what is no helper of its own does not run. In guests only."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.module import TestModule, address_of

pytestmark = [pytest.mark.needs("guest", "test_module", "fmod_ret")]
KIND = "runtime_integrity.usermode_helper"
ASKS_FOR_A_MODULE = 19
"""An address family that no kernel has: the kernel runs modprobe, and waits for it."""
SETTING = Path("/proc/sys/kernel/modprobe")
HELPER = Path("/tmp/krie_help")
"""Its path is short: the test module writes 16 bytes at most."""
RAN = Path("/tmp/krie_help.ran")
Way = Callable[[TestModule], AbstractContextManager[None]]


@contextmanager
def by_setting(_: TestModule) -> Iterator[None]:
    before = SETTING.read_text()
    SETTING.write_text(str(HELPER))
    try:
        yield
    finally:
        SETTING.write_text(before)


def by_memory(module: TestModule) -> AbstractContextManager[None]:
    """As exploits do, whom no sysctl sees."""
    return module.effect("write", address_of("modprobe_path"), f"{HELPER}\0".encode().hex())


@pytest.fixture(scope="module", params=["observe", "enforce"])
def judging(
    request: pytest.FixtureRequest, alone: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("state")
    folder.chmod(0o700)
    plugins = {"runtime_integrity": {"required": True, "mode": request.param}}
    with RunningAgent(folder, plugins=plugins, enforcement={"guard": False}) as running:
        yield running


@pytest.fixture
def helper() -> Iterator[Path]:
    HELPER.write_text(f"#!/bin/sh\nid -u > {RAN}\n")
    HELPER.chmod(0o755)
    yield HELPER
    HELPER.unlink()
    RAN.unlink(missing_ok=True)


def asked_for_a_module(agent: RunningAgent, before: int) -> list[Line]:
    """What is told of programs that the kernel starts for it, beyond the lines there were."""
    with pytest.raises(OSError, match="Address family"):
        socket.socket(ASKS_FOR_A_MODULE)
    agent.settle()
    return agent.lines(KIND)[before:]


@pytest.mark.parametrize("way", [by_setting, by_memory])
def test_another_program_is_told_and_not_started(
    judging: RunningAgent, test_module: TestModule, helper: Path, way: Way
) -> None:
    before = len(judging.lines(KIND))
    with way(test_module):
        (line,) = asked_for_a_module(judging, before)
    assert line["event"]["path"] == str(HELPER)
    assert fired(line) == [("HELPER001", "override")]
    enforced = line["mode"] == "enforce"
    assert line["done"] == (["refused"] if enforced else [])
    assert RAN.exists() != enforced


def test_what_a_user_controls(judging: RunningAgent, test_module: TestModule, helper: Path) -> None:
    os.chown(helper, 65534, 65534)
    before = len(judging.lines(KIND))
    with by_memory(test_module):
        (line,) = asked_for_a_module(judging, before)
    assert {name for name, _ in fired(line)} == {"HELPER001", "HELPER002"}
    assert line["event"]["file_uid"] == 65534
    assert RAN.exists() != (line["mode"] == "enforce")


def test_modprobe_goes_on(judging: RunningAgent) -> None:
    lines = asked_for_a_module(judging, len(judging.lines(KIND)))
    assert lines, "the kernel started nothing"
    assert {line["event"]["path"] for line in lines} == {SETTING.read_text().strip()}
    assert all(line["done"] == [] and fired(line) == [] for line in lines)
