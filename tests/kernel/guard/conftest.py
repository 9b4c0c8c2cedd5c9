"""The agent that guards itself, with somebody who was there before it: one for all tests here.

In guests only: nobody could end it but tgid 1, and a Ctrl-C.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from krie.kernel import bpf
from krie.testing.agent import RunningAgent
from krie.testing.bpf_objects import Objects, bpf_objects

from ..early import Early
from ..stage import Stage


@dataclass(frozen=True, slots=True)
class Guarded:
    """The agent, and what was there when it started."""

    agent: RunningAgent
    before: Objects
    early: Early
    link: Path
    """A symbolic link on the way to the journal."""


@pytest.fixture
def guarded(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """All of it, on the stage; a test that ends the agent may be followed by others."""
    return stage.given("guarding", lambda stack: _made(stack, tmp_path_factory.mktemp))


def _made(stack: ExitStack, new_folder: Callable[[str], Path]) -> Guarded:
    before = bpf_objects()
    bpf.allow_locked_memory()
    early = Early(("krie_agent", "krie_busy"), ("krie_change",))
    stack.callback(early.end)
    folder = new_folder("guarding")
    folder.chmod(0o700)
    link = new_folder("on-the-way") / "link"
    link.symlink_to(folder)
    agent = RunningAgent(
        folder,
        plugins={"runtime_integrity": {"mode": "enforce"}},
        journal={"path": str(link / "journal.jsonl")},
        guards=True,
    )
    stack.enter_context(_ending_well(agent))
    early.end()
    return Guarded(agent, before, early, link)


@contextmanager
def _ending_well(agent: RunningAgent) -> Iterator[None]:
    with agent:
        yield
    assert agent.process.returncode == 0, agent.stderr


@pytest.fixture
def guarding(guarded: Guarded) -> RunningAgent:
    """The agent."""
    return guarded.agent


@pytest.fixture
def link(guarded: Guarded) -> Path:
    """A symbolic link on the way to its journal."""
    return guarded.link


@pytest.fixture
def before(guarded: Guarded) -> Objects:
    """What BPF there was without this agent."""
    return guarded.before


@pytest.fixture
def early(guarded: Guarded) -> Early:
    """Whoever took descriptors while it started."""
    return guarded.early
