"""Whom `krie doctor` asks: the running agent, and where none runs, a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..agent.admin import TIMEOUT_S, ask
from ..errors import NotRunningError


def consult(run_dir: Path, try_now: Callable[[], dict[str, Any]], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The report, as `krie.agent.diagnosis.Report.to_json` makes it.

    Nothing is tried beside an agent that refuses to answer, or gives none. Raises what `krie.agent.admin.ask` raises,
    but for `NotRunningError`.
    """
    try:
        return ask(run_dir, {"ask": "doctor"}, timeout_s)
    except NotRunningError:
        return try_now()
