"""Asks for a bundle by OPA's bundle protocol: with the entity tag of the last one, held open where the server can."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..policy.archive import MOST_PACKED
from ..services_config import BundleConfig
from .backoff import backoff_s
from .http import Answer, ServiceError, request

_LONG_POLLING = "application/vnd.openpolicyagent.bundles"
"""What a server calls its answers that can hold a request open."""
_LEAST_S = 1.0
"""Between two requests that are held open: a server that answers at once may not make this a busy loop."""
_OK, _NOT_MODIFIED = 200, 304
_SAID = 300
_LONGEST_ETAG = 1024


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll found."""

    raw: bytes | None
    """The bundle's bytes; None: it is the one of `etag` still."""
    etag: str
    """By which it is asked for next time; empty: the server gave none."""
    size: int = 0


class Polling:
    """The questions, and when the next one is due."""

    def __init__(
        self,
        config: BundleConfig,
        url: str,
        *,
        ask: Callable[..., Answer] = request,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet. `ask` is `krie.services.http.request`; `draw` gives numbers from 0 to 1."""
        self._config, self._service = config, config.service(url)
        self._ask, self._draw, self._clock = ask, draw, clock
        self.etag = ""
        """The tag of the bundle that is known; to be set by whoever knows one."""
        self._failures = 0
        self.delay_s = 0.0
        """How long to wait before the next question."""

    def ask(self) -> Polled:
        """Ask once. Raises `ServiceError`, `ConfigError`; `delay_s` is set in any case."""
        started = self._clock()
        wait_s = self._config.long_poll_s
        self._failures += 1
        self.delay_s = backoff_s(self._failures, self._config.max_delay_s, self._draw())
        # Deltas are not asked for: a bundle is verified and tried as a whole.
        answer = self._ask(
            self._service,
            "GET",
            most_bytes=MOST_PACKED,
            seconds=self._config.timeout_s + wait_s,
            silent_s=min(30.0, self._config.timeout_s) + wait_s,
            headers={
                "Prefer": f"modes=snapshot;wait={wait_s}" if wait_s else "modes=snapshot",
                **({"If-None-Match": self.etag} if self.etag else {}),
            },
        )
        if answer.status not in (_OK, _NOT_MODIFIED) or (answer.status == _NOT_MODIFIED and not self.etag):
            said = answer.body[:_SAID].decode(errors="replace")
            shown = "".join(each if each.isprintable() else " " for each in said).strip()
            raise ServiceError(
                f"{self._service.shown}: answers {answer.status}: {shown or 'nothing more'}", answer.status
            )
        self._failures = 0
        if wait_s and answer.headers.get("content-type", "").partition(";")[0].strip() == _LONG_POLLING:
            self.delay_s = max(0.0, _LEAST_S - (self._clock() - started))
        else:
            least, most = self._config.min_delay_s, self._config.max_delay_s
            self.delay_s = least + (most - least) * self._draw()
        if answer.status == _NOT_MODIFIED:
            return Polled(None, self.etag)
        etag = answer.headers.get("etag", "")
        return Polled(answer.body, etag if len(etag) <= _LONGEST_ETAG and etag.isprintable() else "", len(answer.body))
