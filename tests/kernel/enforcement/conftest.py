"""The agent that enforces, with the victims whom its policy is about: one for all tests here."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.victims import Interpreter, Victims

from .. import enforcing as victims_of
from .. import example
from ..enforcing import ENFORCEMENT, HIJACKED, WRITE, Run, copied_python, running
from ..overlays import overlaid
from ..stage import Stage


@dataclass(frozen=True, slots=True)
class Enforcing:
    """The agent, and the interpreters that run victims."""

    agent: RunningAgent
    unnamed_python: Interpreter
    named_python: Interpreter
    """One that the policy has a name for."""


@pytest.fixture
def enforcement(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Enforcing:
    """Agent and victims, on the stage."""
    return stage.given("enforcing", lambda stack: _made(stack, tmp_path_factory.mktemp))


def _made(stack: ExitStack, new_folder: Callable[[str], Path]) -> Enforcing:
    named = _named(stack)
    folder = new_folder("enforcing")
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "enforcing.rego").write_text(Path(victims_of.__file__).with_name("enforcing.rego").read_text())
    places = {"hijacked": ("kprobe", "commit_creds", "example_hijacked", 0)}
    plugin = example.write(folder / "plugin", places, HIJACKED, "import os; os.setuid(os.getuid())")
    agent = RunningAgent(
        folder,
        plugins={"runtime_integrity": {"mode": "enforce"}, "example": {"mode": "enforce"}},
        agent={"allow_syscall_tracepoints": False},
        enforcement=ENFORCEMENT,
        executables={"victim": named, "kmod": Path("/usr/bin/kmod")},
        policies=[policy],
        plugin_folders=[plugin],
    )
    stack.enter_context(agent)
    unnamed_python = stack.enter_context(running(copied_python(new_folder("unnamed"))))
    return Enforcing(agent, unnamed_python, stack.enter_context(running(named)))


def _named(stack: ExitStack) -> Path:
    """A victim's Python that the policy has a name for; on an overlayfs, as in a container."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/run")))
    (folder / "image").mkdir()
    python = copied_python(folder / "image")
    return stack.enter_context(overlaid(folder, "image", "root")) / python.name


@pytest.fixture
def enforcing(enforcement: Enforcing) -> RunningAgent:
    """The agent."""
    return enforcement.agent


@pytest.fixture
def victim(victims: Victims, enforcement: Enforcing) -> Run:
    """Runs code by a program that the policy has no name for."""
    return lambda code, *arguments: victims.run(WRITE + code, *arguments, interpreter=enforcement.unnamed_python)


@pytest.fixture
def named_victim(victims: Victims, enforcement: Enforcing) -> Run:
    """The same by one that it has a name for."""
    return lambda code, *arguments: victims.run(WRITE + code, *arguments, interpreter=enforcement.named_python)
