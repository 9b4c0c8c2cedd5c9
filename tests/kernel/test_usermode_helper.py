"""What the kernel starts by itself is known; what is no helper of its own, or is given something else, does not run.

In guests only.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.module import TestModule, address_of
from krie.testing.patience import wait_for

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


MODPROBE = "/sbin/modprobe"
"""As the guests' kernels have it."""
CORES = Path("/proc/sys/kernel/core_pattern")
LIBRARY = "LD_PRELOAD=/tmp/krie_none.so"


def told(agent: RunningAgent, before: int) -> Line:
    """The first line of a program that the kernel starts, beyond those there were."""
    agent.settle()
    wait_for(lambda: len(agent.lines(KIND)) > before)
    return agent.lines(KIND)[before]


def is_judged(agent: RunningAgent, line: Line, rules: set[str]) -> bool:
    """Whether exactly these rules fired. True where the program was let go on, which they may have run."""
    assert {name for name, _ in fired(line)} == rules
    enforced = line["mode"] == "enforce"
    assert line["done"] == (["refused"] if enforced else [])
    agent.settle()
    return not enforced


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Of modprobe: how to load `krie_none`."""
    (tmp_path / "krie.conf").write_text(f"install krie_none /bin/sh -c 'id -u > {RAN}'\n")
    return tmp_path


def test_a_listed_helper_runs_what_a_core_pattern_says(
    judging: RunningAgent, helper: Path, configuration: Path
) -> None:
    before, pattern = len(judging.lines(KIND)), CORES.read_text()
    CORES.write_text(f"|{MODPROBE} -C {configuration} krie_none")
    try:
        crashed = subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
        line = told(judging, before)
    finally:
        CORES.write_text(pattern)
    assert crashed.returncode == -signal.SIGSEGV
    assert line["event"]["path"] == MODPROBE
    assert (line["event"]["argument_1"], line["event"]["argument_2"]) == ("-C", str(configuration)[:15])
    if is_judged(judging, line, {"HELPER003"}):
        wait_for(RAN.exists)
    assert RAN.exists() != (line["mode"] == "enforce")


def test_another_handler_of_core_dumps(judging: RunningAgent, helper: Path) -> None:
    before, pattern = len(judging.lines(KIND)), CORES.read_text()
    CORES.write_text(f"|{helper} %P")
    try:
        subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
        line = told(judging, before)
    finally:
        CORES.write_text(pattern)
    assert line["event"]["path"] == str(helper)
    if is_judged(judging, line, {"HELPER001"}):
        wait_for(RAN.exists)
    assert RAN.exists() != (line["mode"] == "enforce")


def test_a_release_agent(judging: RunningAgent, helper: Path, tmp_path: Path) -> None:
    before = len(judging.lines(KIND))
    subprocess.run(["mount", "-t", "cgroup", "-o", "none,name=krie_test", "none", tmp_path], check=True)
    try:
        (tmp_path / "release_agent").write_text(str(helper))
        group = tmp_path / "group"
        group.mkdir()
        (group / "notify_on_release").write_text("1")
        subprocess.run(["sh", "-c", f"echo $$ > {group}/cgroup.procs"], check=True)
        line = told(judging, before)
        group.rmdir()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert line["event"]["path"] == str(helper)
    if is_judged(judging, line, {"HELPER001"}):
        wait_for(RAN.exists)
    assert RAN.exists() != (line["mode"] == "enforce")


def start(module: TestModule, *words: str) -> None:
    """As the kernel does; raises `PermissionError` where the program is refused."""
    with module.effect("start", *words):
        pass


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ((MODPROBE, "-q", "--", "krie_none", "env", "HOME=/", "TERM=linux", "PATH=/sbin"), set()),
        ((MODPROBE, "-q", "--", "krie_none"), set()),
        (("/sbin/poweroff", "--help", "env", "HOME=/", "PATH=/sbin"), set()),
        ((MODPROBE, "-qC", "/tmp", "krie_none"), {"HELPER003"}),
        ((MODPROBE,), {"HELPER003"}),
        ((MODPROBE, "-q", "--", "krie_none", "env", LIBRARY), {"HELPER003"}),
        ((MODPROBE, "-q", "--", "krie_none", "env", "HOME=/", "TERM=linux", "PATH=/sbin", LIBRARY), {"HELPER003"}),
        ((MODPROBE, "-q", "--", "krie_none", "env", "HOMES=/"), {"HELPER003"}),
    ],
)
def test_what_a_helper_is_given(
    judging: RunningAgent,
    test_module: TestModule,
    lacks: Callable[[str], NoReturn],
    words: tuple[str, ...],
    rules: set[str],
) -> None:
    if not Path(words[0]).exists():
        lacks(f"helper: there is no {words[0]}")
    before = len(judging.lines(KIND))
    refused = False
    try:
        start(test_module, *words)
    except PermissionError:
        refused = True
    line = told(judging, before)
    assert {name for name, _ in fired(line)} == rules
    assert refused == (bool(rules) and line["mode"] == "enforce")


@contextmanager
def interpreted(interpreter: Path, folder: Path, lacks: Callable[[str], NoReturn]) -> Iterator[None]:
    """binfmt_misc: whatever has the place of modprobe's section headers is run by this."""
    if subprocess.run(["mount", "-t", "binfmt_misc", "none", folder], check=False).returncode:
        lacks("binfmt_misc")
    at = 40
    magic = "".join(f"\\x{byte:02x}" for byte in Path(MODPROBE).read_bytes()[at : at + 8])
    try:
        (folder / "register").write_text(f":krie:M:{at}:{magic}::{interpreter}:")
        yield
    finally:
        if (folder / "krie").exists():
            (folder / "krie").write_text("-1")
        subprocess.run(["umount", folder], check=True)


def test_an_interpreter_that_a_user_controls(
    judging: RunningAgent, helper: Path, tmp_path: Path, lacks: Callable[[str], NoReturn]
) -> None:
    os.chown(helper, 65534, 65534)
    before = len(judging.lines(KIND))
    with interpreted(helper, tmp_path, lacks):
        lines = asked_for_a_module(judging, before)
    line = lines[-1]
    assert (line["event"]["path"], line["event"]["interpreter"]) == (MODPROBE, True)
    is_judged(judging, line, {"HELPER002"})
    assert RAN.exists() != (line["mode"] == "enforce")


def test_an_interpreter_of_root_s(
    judging: RunningAgent, helper: Path, tmp_path: Path, lacks: Callable[[str], NoReturn]
) -> None:
    before = len(judging.lines(KIND))
    with interpreted(helper, tmp_path, lacks):
        lines = asked_for_a_module(judging, before)
    assert {(line["event"]["interpreter"], *fired(line)) for line in lines} == {(False,)}
    assert RAN.exists()
