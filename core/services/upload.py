"""Sends what waits to a decision log service, oldest first, and again until it is taken."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..services_config import DecisionLogsConfig
from .backoff import backoff_s
from .http import Answer, ServiceError, request
from .spool import Spool

_MOST_ANSWER = 1 << 16
_TOO_LARGE = 413


class Upload:
    """One step at a time; `delay_s` says when the next one is due."""

    def __init__(
        self,
        config: DecisionLogsConfig,
        spool: Spool,
        on_drop: Callable[[int, str], None],
        *,
        ask: Callable[..., Answer] = request,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is sent yet. `ask` is `krie.services.http.request`."""
        self._config, self._spool, self._on_drop = config, spool, on_drop
        self._service = config.service(f"{config.url.rstrip('/')}{config.resource}")
        self._ask, self._draw = ask, draw
        self._failures = 0
        self.delay_s = 0.0
        self.sent = 0
        """Decisions that were taken."""

    def step(self) -> None:
        """Send one file, if there is one. Raises `ServiceError`, `ConfigError`, `OSError`: it stays then."""
        least, most = self._config.min_delay_s, self._config.max_delay_s
        self._failures += 1
        self.delay_s = backoff_s(self._failures, most, self._draw())
        batch = self._spool.oldest()
        if batch is not None:
            answer = self._ask(
                self._service,
                "POST",
                most_bytes=_MOST_ANSWER,
                seconds=self._config.timeout_s,
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
                body=batch.path.read_bytes(),
            )
            if answer.status == _TOO_LARGE:
                self._on_drop(batch.count, f"{self._service.shown} answers 413; set decision_logs.upload_kib lower")
            elif not 200 <= answer.status < 300:
                raise ServiceError(f"{self._service.shown}: answers {answer.status}", answer.status)
            else:
                self.sent += batch.count
            self._spool.remove(batch)
        self._failures = 0
        self.delay_s = 0.0 if batch is not None and self._spool.more else least + (most - least) * self._draw()
