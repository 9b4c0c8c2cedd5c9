"""The courier's thread that sends decisions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ..config import Config
from ..errors import KrieError
from .counter import Counter
from .decisions import Decisions, Drops
from .spool import Spool
from .status_report import StatusReport
from .thread import Message, Tell
from .upload import Upload

LOGS_FOLDER = "decision_logs"
"""Below `agent.state_dir`."""


class LogsThread:
    """Takes decisions from the agent, and sends what waits on disk."""

    def __init__(
        self, config: Config, tell: Tell, status: StatusReport, labels: Mapping[str, str], taken: Counter
    ) -> None:
        """`taken`: counts decisions that came to this process. Raises `ConfigError`."""
        settings = config.decision_logs
        self._tell, self._status, self._taken = tell, status, taken
        self._drops = Drops()
        folder = Path(config.agent.state_dir) / LOGS_FOLDER
        self._spool = Spool(folder, settings.buffer_mib << 20, settings.upload_kib << 10, self._drops.put)
        self.decisions = Decisions(self._spool, labels, self._drops.put, config.policy.decision_ms / 1000)
        self._upload = Upload(settings, self._spool, self._drops.put)
        self._told_last = ""

    def run(self) -> None:
        """Never returns."""
        while True:
            trouble, status = "", 0
            try:
                self._upload.step()
            except (KrieError, OSError) as error:
                trouble, status = str(error), getattr(error, "status", 0)
            self._status.count(sent=self._upload.sent)
            self._status.trouble("decision_logs", trouble, status)
            if trouble != self._told_last:
                self._told_last = trouble
                self._tell({"service": "decision_logs", "state": "trouble" if trouble else "well", "reason": trouble})
            self.tell_drops()
            time.sleep(self._upload.delay_s)

    def tell_drops(self) -> None:
        """Tell what was dropped since the last call."""
        count, why = self._drops.take()
        if why:
            self._status.count(dropped=count)
            self._tell({"service": "decision_logs", "state": "dropped", "reason": why, "count": count})

    def hear(self, message: Message) -> None:
        """A decision, or another policy."""
        decision = message.get("decision")
        if isinstance(decision, dict):
            self.decisions.take(decision)
            self._taken.add()
        else:
            self.decisions.policy(message)
