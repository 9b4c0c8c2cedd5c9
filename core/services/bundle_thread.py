"""The courier's thread that asks for bundles."""

from __future__ import annotations

import threading
from pathlib import Path

from ..config import Config
from ..errors import KrieError, PolicyError
from ..policy.bundle_file import KEPT_FOLDER
from ..policy.pinned import read_keys
from .intake import Intake
from .kept import KeptBundle
from .polling import Polling
from .status_report import StatusReport
from .thread import Message, Tell

_LONGEST_REASON = 1000
"""Of a refusal, which quotes names of the refused: these may be megabytes."""


class BundleThread:
    """Polls, and waits for what the agent says of each bundle that is offered to it."""

    def __init__(self, config: Config, tell: Tell, status: StatusReport) -> None:
        """Raises `ConfigError`."""
        url = config.policy.bundle
        self._tell, self._status = tell, status
        self._polling = Polling(config.bundle, url)
        self._kept = KeptBundle(Path(config.agent.state_dir) / KEPT_FOLDER)
        keys = config.bundle.keys
        self._intake = Intake(self._kept, url, lambda: read_keys(keys), config.bundle.service(url).shown)
        self._polling.etag = self._intake.known_etag()
        self._answered = threading.Event()
        self._again = threading.Event()
        self._lock = threading.Lock()
        self._told_last: str | None = None

    def run(self) -> None:
        """Never returns."""
        while True:
            self._once()
            if self._again.wait(self._polling.delay_s):
                self._again.clear()

    def hear(self, message: Message) -> None:
        """What the agent says of a bundle: `in_force` or `refused`, or that all is to be tried again."""
        state, digest = str(message["state"]), str(message.get("digest", ""))
        with self._lock:
            try:
                if state == "in_force":
                    self._intake.in_force(digest)
                elif state == "refused":
                    self._intake.refused(digest, str(message["reason"]), again=bool(message["again"]))
                    self._told_last = _short(str(message["reason"]))
                    self._status.trouble("bundle", self._told_last)
                    if message["again"]:
                        self._polling.etag = ""
                elif state == "again":
                    self._intake.forget_refused()
                    self._polling.etag = ""
                    self._again.set()
            except (OSError, KrieError) as error:
                self._told("trouble", f"what is in force cannot be noted: {error}")
            if state != "again" and not self._intake.waits:
                self._answered.set()

    def _once(self) -> None:
        try:
            polled = self._polling.ask()
            self._status.asked(polled.size if polled.raw is not None else None)
            with self._lock:
                if polled.raw is None:
                    why = self._intake.refusal
                    self._told("refused" if why else "well", why)
                    return
                offer = self._intake.take(polled)
                self._answered.clear()
            self._polling.etag = polled.etag
        except PolicyError as error:
            self._polling.etag = polled.etag
            self._told("refused", str(error))
            return
        except (KrieError, OSError) as error:
            self._told("trouble", str(error), getattr(error, "status", 0))
            return
        self._told("well", "")
        if offer is not None:
            self._tell(
                {
                    "service": "bundle",
                    "state": "offered",
                    "digest": offer.digest,
                    "revision": offer.revision,
                    "serial": offer.serial,
                    "executables": dict(offer.executables),
                }
            )
            self._answered.wait()

    def _told(self, state: str, reason: str, status: int = 0) -> None:
        """Tell it, unless it was told last."""
        reason = _short(reason)
        self._status.trouble("bundle", reason, status)
        if reason != self._told_last:
            self._told_last = reason
            self._tell({"service": "bundle", "state": state, "reason": reason, "status": status})


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."
