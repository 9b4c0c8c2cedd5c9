"""Agents that tests of several modules share, one at a time, each with what was made around it.

To arm one takes a guest half a minute, and to end it ten seconds; so their tests come one after the other, by agent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.fixtures import SharedAgent


class Setup(Protocol):
    """An agent, and what was made around it."""

    @property
    def agent(self) -> RunningAgent:
        """It runs, or has ended."""


_SETUPS = ("enforcement", "guarded", "locked")
"""Fixtures that give one, of tests that fill a folder."""
Made = TypeVar("Made", bound=Setup)


@dataclass(frozen=True, slots=True)
class BareSetup:
    """An agent with nothing around it."""

    agent: RunningAgent


class Stage:
    """Starts one when it is asked for, in the place of the one before and of the agent that all other tests share."""

    def __init__(self, shared: SharedAgent) -> None:
        self._shared = shared
        self._name = ""
        self._made: Any = None
        self._stack = ExitStack()

    def given(self, name: str, make: Callable[[ExitStack], Made]) -> Made:
        """What is made under this name, if it is not there with an agent that runs; the stack undoes it."""
        if self._name != name or self._made.agent.process.poll() is not None:
            self.clear()
            self._shared.stop()
            with ExitStack() as stack:
                self._made = make(stack)
                self._name, self._stack = name, stack.pop_all()
        made: Made = self._made
        return made

    def clear(self) -> None:
        """The next test that asks for one starts it."""
        stack, self._stack, self._name, self._made = self._stack, ExitStack(), "", None
        stack.close()


def in_turn(items: list[pytest.Item]) -> None:
    """Tests of one agent come together, and last: only those that share the agent of all others come behind them."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    callspec = getattr(item, "callspec", None)
    mode = callspec.params.get("judging") if callspec is not None else None
    turns = (
        *(setup in names for setup in _SETUPS),
        mode == "observe",
        "observer" in names,
        "enforcer" in names,
        mode == "enforce",
    )
    return turns.index(True) + 1 if any(turns) else 0
