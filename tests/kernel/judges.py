"""Agents with runtime_integrity alone, which observe or enforce, for tests of several modules."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from krie.testing.agent import RunningAgent

from .stage import BareSetup, Stage

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
    """Whoever judges in one of the modes, on the stage."""

    def __init__(self, make_folder: Callable[[], Path], stage: Stage) -> None:
        """`make_folder`: of one more agent."""
        self._make_folder, self._stage = make_folder, stage

    def running(self, mode: Mode) -> RunningAgent:
        """Started, if it does not run."""

        def make(stack: ExitStack) -> BareSetup:
            folder = self._make_folder()
            folder.chmod(0o700)
            plugin = {"required": True, "mode": mode, "parameters": _PARAMETERS[mode]}
            agent = RunningAgent(
                folder, plugins={"runtime_integrity": plugin}, agent=_LOOKS[mode], enforcement={"guard": False}
            )
            return BareSetup(stack.enter_context(agent))

        return self._stage.given(f"judge: {mode}", make).agent
