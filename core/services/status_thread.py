"""The courier's thread that reports status."""

from __future__ import annotations

import json
import random
import time

from ..config import Config
from ..errors import KrieError
from .backoff import backoff_s
from .http import request
from .status_report import StatusReport
from .thread import Tell

_LEAST_S = 1.0
"""Between two reports."""
_MOST_ANSWER = 1 << 16


class StatusThread:
    """Reports how everything stands when that has changed, and from time to time."""

    def __init__(self, config: Config, tell: Tell, status: StatusReport) -> None:
        """Nothing is sent yet."""
        self._tell, self._status, self._most_s = tell, status, config.status.max_delay_s
        self._timeout_s = config.status.timeout_s
        self._service = config.status.service(f"{config.status.url.rstrip('/')}{config.status.resource}")
        self._told_last = ""

    def run(self) -> None:
        """Never returns."""
        failures = 0
        while True:
            self._status.changed.wait(self._most_s)
            self._status.changed.clear()
            trouble = self._sent()
            if trouble != self._told_last:
                self._told_last = trouble
                self._tell({"service": "status", "state": "trouble" if trouble else "well", "reason": trouble})
            failures = failures + 1 if trouble else 0
            if trouble:
                self._status.changed.set()
            draw = random.random()  # noqa: S311 - spreads requests, and hides nothing
            time.sleep(backoff_s(failures, self._most_s, draw) if trouble else _LEAST_S)

    def _sent(self) -> str:
        """What went wrong; empty where nothing did."""
        body = json.dumps(self._status.to_json()).encode()
        headers = {"Content-Type": "application/json"}
        try:
            answer = request(
                self._service, "POST", most_bytes=_MOST_ANSWER, seconds=self._timeout_s, headers=headers, body=body
            )
        except (KrieError, OSError) as error:
            return str(error)
        return "" if 200 <= answer.status < 300 else f"{self._service.shown}: answers {answer.status}"
