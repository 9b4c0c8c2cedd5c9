"""Whoever leads system calls to the module that it loads is killed, by the kernel, where that is enforced."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from krie import loaded_modules
from krie.events.numbers import LONG
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule, address_of
from krie.testing.patience import PATIENCE_S

from .diversions import MODULE, RARE, SLOT, TRIGGER, at_start, diversion, number_of
from .lines import of, rules_of
from .own_bpf import map_of
from .syscall_hooks import HOOK, Hooks


@pytest.fixture(scope="module")
def enforcing(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    plugins = {"syscall_table": {"mode": "enforce", "code": False}}
    with RunningAgent(folder, plugins=plugins, agent={"scan_interval_s": 1}) as agent:
        yield agent


def insmod(module: TestModule, words: str, *numbers: int) -> subprocess.Popen[bytes]:
    """Load it so that its init function diverts a system call, and wait for the end of whoever loads it."""
    module.unload()
    loader = subprocess.Popen(["insmod", str(module.file), at_start(words, *numbers)])
    loader.wait(PATIENCE_S)
    return loader


@pytest.mark.needs("test_module", "raw_tracepoint", "kretprobe")
@pytest.mark.parametrize(("what", "how"), [("table", "force"), ("jump", "force"), ("table", "alias"), ("jump", "poke")])
def test_who_is_caught_is_killed_before_its_system_call_returns(
    enforcing: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn], what: str, how: str
) -> None:
    """insmod prints nothing and ends at once where it is not."""
    words = diversion(what, how, lacks)
    hooks = Hooks(enforcing)
    loader = insmod(test_module, *words)
    assert loader.returncode == -signal.SIGKILL
    (line,) = hooks.expect(1)
    assert line["process"]["tgid"] == loader.pid
    assert of(line, "own_module", "trigger") == (True, {"force": "module_init"}.get(how, TRIGGER[how]))
    assert rules_of(line) == {"SYSCALL001", "SYSCALL002"}
    assert line["decision"]["tier"] == "kernel"
    assert "killed" in line["done"]
    test_module.unload()
    (line,) = hooks.expect(1)
    assert line["event"]["restored"]
    test_module.load()  # which diverts nothing, and is nobody's fault
    hooks.none()


@pytest.mark.needs("test_module", "raw_tracepoint")
def test_nobody_is_killed_for_what_leads_elsewhere(enforcing: RunningAgent, test_module: TestModule) -> None:
    """As where somebody else changes a table, on another CPU, while a module's init function runs."""
    other = next(each for each in loaded_modules() if each.name != MODULE)
    slot = address_of("sys_call_table") + SLOT * number_of(RARE)
    hooks = Hooks(enforcing)
    loader = insmod(test_module, "divert slot force", slot, other.address, 0)
    assert loader.returncode == 0
    (line,) = hooks.expect(1)
    assert of(line, "own_module", "trigger", "target", "owner") == (False, "module_init", "module", other.name)
    assert line["process"]["tgid"] == loader.pid
    assert rules_of(line) == {"SYSCALL001"}
    assert line["done"] == []
    test_module.unload()
    hooks.expect(1)
    test_module.load()
    assert len(enforcing.lines(HOOK, lambda line: "killed" in line["done"])) == len(
        enforcing.lines(HOOK, lambda line: line["event"]["own_module"])
    )


@pytest.mark.needs("test_module", "raw_tracepoint")
def test_what_a_thread_loaded_is_forgotten(enforcing: RunningAgent, test_module: TestModule) -> None:
    """What comes to lie there next may be loaded by somebody else, and this thread would be killed for it."""
    test_module.unload()
    loaders = [subprocess.Popen(["insmod", str(test_module.file)]) for _ in range(2)]  # one of them in vain
    ends = sorted(each.wait(PATIENCE_S) for each in loaders)
    assert ends[0] == 0 < ends[1]
    with map_of(enforcing.process.pid, "syscall_table_loading") as loading:
        noted = {LONG.decode(thread) >> 32 for thread, _ in loading.items()}
    assert not noted & {each.pid for each in loaders}


@pytest.mark.needs("test_module", "kretprobe")
def test_nobody_is_killed_for_what_a_module_does_later(
    enforcing: RunningAgent, test_module: TestModule, lacks: Callable[[str], NoReturn]
) -> None:
    """The process that writes to the device is at hand then, and has not loaded it."""
    hooks = Hooks(enforcing)
    with test_module.effect(*diversion("table", "alias", lacks)):
        (line,) = hooks.expect(1)
        assert of(line, "own_module", "trigger") == (False, "alias")
        assert rules_of(line) == {"SYSCALL001"}
    hooks.expect(1)
