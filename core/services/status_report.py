"""How bundle and decision logs stand, in the shape that OPA's status API has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..events.wire import Json

BUNDLE = "krie"
"""The name that the policy has in status and decision logs."""
_NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which OPA reports for what has not happened."""
_ERROR = {"bundle": "bundle_error", "decision_logs": "decision_log_error"}


@dataclass(slots=True)
class _Trouble:
    """What is wrong with one service; an empty message: nothing."""

    message: str = ""
    status: int = 0

    def to_json(self, service: str) -> dict[str, Json]:
        if not self.message:
            return {}
        code: dict[str, Json] = {"http_code": str(self.status)} if self.status else {}
        return {"code": _ERROR[service], "message": self.message, **code}


@dataclass(slots=True)
class _Bundle:
    active_revision: str = ""
    last_successful_activation: str = _NEVER
    last_successful_download: str = _NEVER
    last_successful_request: str = _NEVER
    last_request: str = _NEVER
    size: int = 0
    trouble: _Trouble = field(default_factory=_Trouble)


class StatusReport:
    """Kept by all threads of the courier; tells when it has changed."""

    def __init__(
        self, labels: Mapping[str, str], services: tuple[str, ...], clock: Callable[[], float] = time.time
    ) -> None:
        """`services`: those of `bundle`, `decision_logs` and `status` that are configured."""
        self._labels, self._services, self._clock = labels, services, clock
        self._lock = threading.Lock()
        self._bundle, self._logs = _Bundle(), _Trouble()
        self._counts = {"sent": 0, "dropped": 0}
        self.changed = threading.Event()

    def in_force(self, revision: str) -> None:
        """The agent decides by this policy."""
        with self._lock:
            self._bundle.active_revision = revision
            self._bundle.last_successful_activation = self._now()
        self.changed.set()

    def asked(self, size: int | None) -> None:
        """The bundle server has answered. `size`: of the bundle that it sent; None: what is known is still right."""
        with self._lock:
            self._bundle.last_request = self._bundle.last_successful_request = self._now()
            if size is not None:
                self._bundle.last_successful_download, self._bundle.size = self._now(), size

    def trouble(self, service: str, message: str, status: int = 0) -> None:
        """What is wrong with a service; empty: nothing any more."""
        with self._lock:
            if service == "bundle":
                if status or not self._bundle.trouble.message:
                    self._bundle.last_request = self._now()
                self._bundle.trouble = _Trouble(message, status)
            elif service == "decision_logs":
                self._logs = _Trouble(message, status)
            else:
                return
        self.changed.set()

    def count(self, *, sent: int | None = None, dropped: int = 0) -> None:
        """Decisions that a service has taken since the start, and that were dropped since the last call."""
        with self._lock:
            self._counts["sent"] = sent if sent is not None else self._counts["sent"]
            self._counts["dropped"] += dropped

    def to_json(self) -> dict[str, Json]:
        """The report."""
        with self._lock:
            troubles = {"bundle": self._bundle.trouble.message, "decision_logs": self._logs.message}
            plugins: dict[str, Json] = {}
            for each in self._services:
                message = troubles.get(each, "")
                plugins[each] = {"state": "ERROR", "message": message} if message else {"state": "OK"}
            bundle: dict[str, Json] = {
                "name": BUNDLE,
                "active_revision": self._bundle.active_revision,
                "last_successful_activation": self._bundle.last_successful_activation,
                "last_successful_download": self._bundle.last_successful_download,
                "last_successful_request": self._bundle.last_successful_request,
                "last_request": self._bundle.last_request,
                "type": "snapshot",
                "size": self._bundle.size,
                **self._bundle.trouble.to_json("bundle"),
            }
            report: dict[str, Json] = {"labels": dict(self._labels), "bundles": {BUNDLE: bundle}, "plugins": plugins}
            if "decision_logs" in self._services:
                metrics: Json = {
                    "counter_decision_logs_uploaded": self._counts["sent"],
                    "counter_decision_logs_dropped": self._counts["dropped"],
                }
                report["decision_logs"] = {**self._logs.to_json("decision_logs"), "metrics": metrics}
            return report

    def _now(self) -> str:
        now = self._clock()
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}Z"
