"""Decisions on their way to a decision log service, in OPA's format: masked, kept on disk, sent."""

from __future__ import annotations

import json
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..decision import Decision
from ..enforce.enforcer import Effect
from ..errors import PolicyError
from ..events.wire import Json
from .mask import Mask
from .spool import Spool
from .status_report import BUNDLE

_PATH = "krie/decision/result"
"""The entry point of `policies/decision.rego`, by which an OPA server gives the same result."""
_UNTOLD = "part of the policy could not be evaluated; the journal says what"
"""Where there are masks: the engine's own text may quote the input, of which masks hide parts."""
_COMPILE_S = 5.0
"""What compiling masks may take beyond the time for one decision."""
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def decision_line(kind: str, document: Mapping[str, Json], decision: Decision, effect: Effect, time: str) -> str:
    """What the agent tells of one decision: the event but its labels and its id, which the courier adds."""
    result: dict[str, Json] = {
        "action": str(decision.action),
        "scope": str(decision.scope),
        "errno": decision.errno,
        "ttl_s": decision.ttl_s,
        "rules": [{"id": each.id, "action": str(each.action)} for each in decision.rules],
    }
    event: dict[str, Json] = {
        "bundles": {BUNDLE: {"revision": decision.revision}},
        "path": _PATH,
        "input": dict(document),
        "result": result,
        "timestamp": time,
        "custom": {
            "kind": kind,
            "tier": decision.tier,
            "mode": str(effect.mode),
            "would": list[Json](effect.would),
            "done": list[Json](effect.done),
            **({"error": decision.error} if decision.error else {}),
        },
    }
    return _encode({"service": "decision_logs", "decision": event})


class Decisions:
    """Takes them one by one, and puts them where they wait for being sent."""

    def __init__(
        self, spool: Spool, labels: Mapping[str, str], on_drop: Callable[[int, str], None], mask_s: float
    ) -> None:
        """`mask_s`: timeout for masking one decision, in seconds; then SIGALRM ends this process.

        So it does where compiling masks takes that and five seconds more.
        """
        self._spool, self._labels, self._on_drop, self._mask_s = spool, dict(labels), on_drop, mask_s
        self._mask: Mask | None = None
        self._unmaskable = ""

    def policy(self, message: Mapping[str, Any]) -> None:
        """Another policy is in force, with other masks or none."""
        mask = message.get("mask")
        self._mask, self._unmaskable = None, ""
        if mask is not None and "unusable" in mask:
            self._unmaskable = str(mask["unusable"])
        elif mask is not None:
            try:
                with _within(self._mask_s + _COMPILE_S):
                    self._mask = Mask([(str(place), str(text)) for place, text in mask["files"]], mask["data"])
            except PolicyError as error:
                self._unmaskable = str(error)

    def take(self, event: dict[str, Any]) -> None:
        """One decision. What cannot be masked is dropped: it may hold what nobody is to see."""
        event = {"labels": self._labels, "decision_id": str(uuid.uuid4()), **event}
        if self._unmaskable:
            self._on_drop(1, f"they cannot be masked: {self._unmaskable}")
            return
        try:
            kept = self._masked(event)
        except PolicyError as error:
            self._on_drop(1, f"they cannot be masked: {error}")
            return
        if kept is not None:
            self._spool.add(_encode(kept).encode("utf-8", "backslashreplace"))

    def _masked(self, event: dict[str, Any]) -> dict[str, Any] | None:
        if self._mask is None:
            return event
        with _within(self._mask_s):
            kept = self._mask.applied(event)
        if kept is not None and "error" in kept.get("custom", {}):
            kept = {**kept, "custom": {**kept["custom"], "error": _UNTOLD}}
        return kept


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Else this process ends: a rule without end holds the interpreter's lock, and all threads with it."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


class Drops:
    """Sums what was dropped, so that a flood is told in few words."""

    def __init__(self) -> None:
        """Start with no drops counted."""
        self._lock = threading.Lock()
        self._count, self._why = 0, ""

    def put(self, count: int, why: str) -> None:
        """So many more, and why the last ones."""
        with self._lock:
            self._count += count
            self._why = why

    def take(self) -> tuple[int, str]:
        """Since the last call; an empty reason: none."""
        with self._lock:
            count, why = self._count, self._why
            self._count, self._why = 0, ""
            return count, why
