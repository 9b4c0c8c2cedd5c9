"""pytest fixtures for tests with a real agent, here or in a guest of the lab. In a conftest.py at the top of the tests:

    pytest_plugins = ("krie.testing.fixtures",)

    @pytest.fixture(scope="session")
    def agent_options():
        return {"plugins": {"my_plugin": {}}}

and then

    @pytest.mark.needs("kprobe")
    def test_a_trigger(journal, victims):
        victims.run("libc.syscall(...)")
        (line,) = journal.exactly("my_plugin.event", 1, answer=42)

A test whose features are missing is skipped, and says which; with KRIE_REQUIRE_KERNEL=1 it fails, but for the features
that KRIE_MAY_LACK names. What can be needed:
the attach types by their names; `ia32`, 32-bit callers; `error_injection`, for bpf_override_return; `guest`, for
what must not happen to a machine that others use; `test_module`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ..kernel.features import Features
from ..loader.launcher import LoaderProcess
from .agent import Line, RunningAgent
from .module import TestModule
from .needs import MODULE_VARIABLE, why_missing
from .victims import Interpreter, Victims, new_victims


class JournalOfVictims:
    """What an agent's journal says about one test's victims."""

    def __init__(self, agent: RunningAgent, victims: Victims) -> None:
        """Both must live as long."""
        self._agent, self._victims = agent, victims

    def lines(self, kind: str) -> list[Line]:
        """All lines of a kind, once everything that happened before this call is journaled."""
        self._agent.settle()
        return list(self._agent.lines(kind, self._victims.mine))

    def exactly(self, kind: str, count: int, **fields: object) -> list[Line]:
        """So many lines of a kind, all with these values in the event; each other number is an `AssertionError`.

        Looks once everything that happened before this call is journaled.
        """
        lines = self.lines(kind)
        assert len(lines) == count, f"{len(lines)} lines of {kind} instead of {count}: {lines}"
        for line in lines:
            found = {name: line["event"].get(name, "no such field") for name in fields}
            assert found == fields
        return lines

    def none(self, kind: str) -> None:
        """No line of this kind."""
        self.exactly(kind, 0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share an agent come last, so that it starts once, whatever the order of files."""
    items.sort(key=lambda item: "agent" in getattr(item, "fixturenames", ()))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "needs(*features): what the kernel must have, such as lsm, kprobe, ia32")


@pytest.fixture(scope="session")
def agent_options() -> Mapping[str, Any]:
    """Arguments of `RunningAgent` for the fixture `agent`; override it."""
    return {"plugins": {}}


class SharedAgent:
    """The agent of all tests that ask for no special one: arming takes long where the machine is emulated."""

    def __init__(self, make: Callable[[], RunningAgent]) -> None:
        """`make`: one that was not started."""
        self._make = make
        self._running: RunningAgent | None = None

    def running(self) -> RunningAgent:
        """Started, if it does not run."""
        if self._running is None or self._running.process.poll() is not None:
            self._running = self._make().__enter__()
        return self._running

    def stop(self) -> None:
        """The next test that asks for it starts it again."""
        if self._running is not None:
            self._running.stop()
            self._running = None


@pytest.fixture(scope="session")
def shared_agent(tmp_path_factory: pytest.TempPathFactory, agent_options: Mapping[str, Any]) -> Iterator[SharedAgent]:
    """What `agent` is taken from."""

    def make() -> RunningAgent:
        folder = tmp_path_factory.mktemp("agent")
        folder.chmod(0o700)
        return RunningAgent(folder, **agent_options)

    shared = SharedAgent(make)
    yield shared
    shared.stop()


@pytest.fixture
def agent(shared_agent: SharedAgent) -> RunningAgent:
    """An armed agent, which tests share."""
    return shared_agent.running()


@pytest.fixture(scope="module")
def alone(shared_agent: SharedAgent) -> None:
    """For a module's own agent that enforces: the shared one must not run beside it.

    Of two programs at one hook the younger one runs first, so that this agent would refuse the other one's canaries.
    """
    shared_agent.stop()


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Runs the victims' Python code."""
    made = Interpreter()
    yield made
    made.close()


@pytest.fixture
def victims(interpreter: Interpreter) -> Iterator[Victims]:
    """Runs programs in a cgroup of this test's own."""
    with new_victims(interpreter) as made:
        yield made


@pytest.fixture
def journal(agent: RunningAgent, victims: Victims) -> JournalOfVictims:
    """What the agent says about this test's victims."""
    return JournalOfVictims(agent, victims)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look at the marker `needs` before any fixture is made: one of them may be an agent that enforces."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if reason := why_missing(name, _features(item.session)):
                _lacks(f"{name}: {reason}")


@pytest.fixture(scope="session")
def features(request: pytest.FixtureRequest) -> Features:
    """What this kernel accepts."""
    return _features(request.session)


@pytest.fixture
def lacks() -> Callable[[str], NoReturn]:
    """Ends a test for want of a feature (`name: why`): skipped, or failed where KRIE_REQUIRE_KERNEL=1 demands it."""
    return _lacks


def _lacks(feature: str) -> NoReturn:
    what = feature.splitlines()[0]
    may_lack = os.environ.get("KRIE_MAY_LACK", "").split()
    if os.environ.get("KRIE_REQUIRE_KERNEL") == "1" and what.partition(":")[0] not in may_lack:
        pytest.fail(f"required, but missing: {what}")
    pytest.skip(f"this kernel lacks {what}")


_FEATURES = pytest.StashKey[Features]()
_ANSWER_S = 600
"""Longest time for the loader to try what the kernel accepts, on a machine that is emulated or busy."""


def _features(session: pytest.Session) -> Features:
    """Tried once, by the first test that asks."""
    if _FEATURES not in session.stash:
        with LoaderProcess(_ANSWER_S) as child:
            session.stash[_FEATURES] = child.features()
    return session.stash[_FEATURES]


@pytest.fixture
def test_module(features: Features, lacks: Callable[[str], NoReturn]) -> Iterator[TestModule]:
    """The module of `krie lab run --module`, loaded for this test."""
    if reason := why_missing("test_module", features):
        lacks(f"test_module: {reason}")
    module = TestModule(Path(os.environ[MODULE_VARIABLE]))
    module.load()
    try:
        yield module
    finally:
        module.unload()
