"""Agents with runtime_integrity alone, which observe or enforce: one at a time, for tests of several modules.

To arm one takes a guest half a minute, and to end it ten seconds; so those tests come one after the other, by mode.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.fixtures import SharedAgent

Mode = Literal["observe", "enforce"]
SCAN_S = 2
NO_SYMBOL = "krie_no_such_symbol"
_NEVER_S = 3600
_LOOKS: dict[Mode, dict[str, Any]] = {
    # It would end, or help itself, where its probes are silent.
    "observe": {"canary_interval_s": _NEVER_S, "scan_interval_s": _NEVER_S},
    "enforce": {"scan_interval_s": SCAN_S},
}
_PARAMETERS: dict[Mode, list[dict[str, Any]]] = {
    "observe": [],
    "enforce": [{"symbol": NO_SYMBOL, "size": 4, "value": 0}],
}


class Judges:
    """Starts one when it is asked for, in the place of the other one and of the agent that all other tests share."""

    def __init__(self, make_folder: Callable[[], Path], shared: SharedAgent) -> None:
        """`make_folder`: of one more agent."""
        self._make_folder, self._shared = make_folder, shared
        self._mode: Mode | None = None
        self._running: RunningAgent | None = None

    def running(self, mode: Mode) -> RunningAgent:
        """Started, if it does not run."""
        if self._running is None or self._mode != mode or self._running.process.poll() is not None:
            self.stop()
            self._shared.stop()
            folder = self._make_folder()
            folder.chmod(0o700)
            plugin = {"required": True, "mode": mode, "parameters": _PARAMETERS[mode]}
            made = RunningAgent(
                folder, plugins={"runtime_integrity": plugin}, agent=_LOOKS[mode], enforcement={"guard": False}
            )
            self._running, self._mode = made.__enter__(), mode
        return self._running

    def stop(self) -> None:
        """The next test that asks for one starts it."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()


def in_turn(items: list[pytest.Item]) -> None:
    """Tests of one judge come together, and last: only those that share the agent come behind them."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    callspec = getattr(item, "callspec", None)
    mode = callspec.params.get("judging") if callspec is not None else None
    turns = (mode == "observe", "observer" in names, "enforcer" in names, mode == "enforce")
    return turns.index(True) + 1 if any(turns) else 0
