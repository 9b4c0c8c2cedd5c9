"""The agent's end of an OPA server: asks it while it decides rightly and in time, and finds out when it does so again.

Another process talks to it, see `krie.opa.worker`: here nothing waits longer than `opa.timeout_ms` and a moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..child import Child, ChildEnded
from ..config import OpaConfig
from ..errors import KernelError
from ..fork_server import ForkServer
from .waiting import WINDOW_S, Waiting
from .worker import ANSWERED, DECLINED, Question, answers_of, asked, serve

NAME = "krie-opa"
"""What its processes are called in /proc and by ps."""
EngineName = Literal["opa", "embedded"]
_MOMENT_S = 0.1
"""How much longer than it should a worker may take that notices itself when its time is over."""
_PROBE_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_STEADY_S = 60.0
"""How long it must have decided for what it did before to be forgotten."""
_MOST_DECLINED = 16
"""Queries in a row."""


@dataclass(frozen=True, slots=True)
class Change:
    """Another engine decides from now on."""

    engine: EngineName
    reason: str
    """Why the server does not; empty where it does."""


def _trivial(revision: str) -> bytes:
    """A request that asks no package anything."""
    return asked(revision, [((), "{}")])


class OpaServer:
    """One server, for as long as the agent lives; policies come and go. One thread uses it."""

    def __init__(
        self,
        config: OpaConfig,
        meanwhile: Callable[[], object] = list,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """To be made before this process has threads, since it forks. `meanwhile` is called while an answer is late."""
        self.together = config.batch
        """Questions that one query may hold."""
        self._config, self._meanwhile, self._clock = config, meanwhile, clock
        self._forks = ForkServer(partial(serve, config), NAME)
        self._worker: Child | None = None
        self._up, self._told, self._why = False, False, "it was not asked yet"
        self._probing: tuple[str, float] | None = None
        self._due = clock()
        self._pause_s = _FIRST_PAUSE_S
        self._since = clock()
        self._declined_in_a_row = 0
        self._waiting = Waiting(config.waiting_percent)
        self._meanwhile_s = 0.0
        self._slow: tuple[str, bytes] | None = None
        """Where it was too slow, the revision and the query with which the time ran out: it is tried again by that."""
        self.answered = self.declined = self.stood_in = 0
        """Questions that it answered; that it said to be wrong; that the embedded engine decided instead."""
        self.changes: deque[Change] = deque(maxlen=100)
        """What has changed since somebody took them out."""

    @property
    def engine(self) -> EngineName:
        """The engine that decides now."""
        return "opa" if self._up else "embedded"

    @property
    def worker(self) -> int | None:
        """Tgid of the process that talks to it."""
        return self._worker.tgid if self._worker is not None else None

    def to_json(self) -> dict[str, Any]:
        """For `krie status` and `krie doctor`."""
        return {
            "deciding": self.engine,
            "server": self._config.url,
            "reason": "" if self._up else self._why,
            "waiting_percent": round(100 * self._waiting.spent_within(self._clock()) / WINDOW_S),
            "answered": self.answered,
            "declined": self.declined,
            "stood_in": self.stood_in,
        }

    def ask(self, questions: Sequence[Question], revision: str) -> list[list[str]] | None:
        """For each question the fired rules of each package, as JSON that nobody has checked. None: it cannot say."""
        self.look(revision)
        if not self._up or self._worker is None:
            self._waiting.note(self._clock(), 1, 0.0)
            self.stood_in += len(questions)
            return None
        request = asked(revision, questions)
        begun, self._meanwhile_s = self._clock(), 0.0
        answer = self._asked(self._worker, request)
        now = self._clock()
        self._waiting.note(now, 1, max(0.0, now - begun - self._meanwhile_s))
        if self._up and self._waiting.over(now):
            self._slow = revision, request if answer is not None else _trivial(revision)
            self._down(
                f"it is slow: the agent waited for it for {self._waiting.spent_s:.1f} of the last {WINDOW_S:.0f} s, "
                f"more than {self._config.waiting_percent} % (opa.waiting_percent)"
            )
        if answer is None:
            self.stood_in += len(questions)
        else:
            self.answered += len(questions)
        return answer

    def distrust(self, questions: int, why: str) -> None:
        """What it answered to so many questions cannot be: do not ask it for a while."""
        self.answered -= questions
        self.stood_in += questions
        self._down(why)

    def look(self, revision: str) -> None:
        """Find out whether it decides again, by this revision, without waiting for it. To be called often."""
        if self._up:
            return
        if self._probing is None:
            if self._clock() < self._due:
                return
            slow, query = self._slow or ("", b"")
            request = query if slow == revision else _trivial(revision)
            try:
                self._worker = self._worker or self._forks.soon()
                if self._worker is None:
                    return
                self._worker.send_bytes(request, _MOMENT_S)
            except (KernelError, ChildEnded, TimeoutError) as error:
                self._down(f"nothing can ask it: {str(error) or type(error).__name__}")
                self._drop()
                return
            self._probing = revision, self._clock() + _PROBE_S
        self._end_of_probe(revision)

    def close(self) -> None:
        """End the processes."""
        self._drop()
        self._forks.close()

    def _end_of_probe(self, revision: str) -> None:
        assert self._probing is not None
        assert self._worker is not None
        probed, end = self._probing
        try:
            raw = self._worker.receive_bytes(0.0)
        except TimeoutError:
            if self._clock() > end:
                self._down("the process that asks it hangs")
                self._drop()
            return
        except ChildEnded:
            self._down(f"the process that asks it {self._worker.end()}")
            self._drop()
            return
        self._probing = None
        if raw[:1] != ANSWERED:
            self._down(raw[1:].decode())
        elif probed != revision:  # a policy came into force meanwhile
            self._due = self._clock()
        elif self._slow is not None and not self._waiting.fits(self._clock(), took_s := answers_of(raw)[0]):
            self._down(f"it is still slow: an answer takes {1000 * took_s:.0f} ms (opa.waiting_percent)")
        else:
            self._up, self._since, self._why = True, self._clock(), ""
            self._declined_in_a_row, self._slow = 0, None
            self._tell(Change("opa", ""))

    def _asked(self, worker: Child, request: bytes) -> list[list[str]] | None:
        try:
            worker.send_bytes(request, _MOMENT_S)
            raw = worker.receive_bytes(self._config.timeout_ms / 1000 + _MOMENT_S, self._use_the_time)
        except TimeoutError:
            self._down("the process that asks it hangs")
            self._drop()
            return None
        except ChildEnded:
            self._down(f"the process that asks it {worker.end()}")
            self._drop()
            return None
        if raw[:1] == ANSWERED:
            self._declined_in_a_row = 0
            return answers_of(raw)[1]
        if raw[:1] == DECLINED:
            self.declined += 1
            self._declined_in_a_row += 1
            if self._declined_in_a_row < _MOST_DECLINED:
                return None
        self._down(raw[1:].decode())
        return None

    def _use_the_time(self) -> None:
        begun = self._clock()
        self._meanwhile()
        self._meanwhile_s += self._clock() - begun

    def _down(self, why: str) -> None:
        now = self._clock()
        if self._up and now - self._since >= _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
        was_up, self._up, self._why, self._probing = self._up, False, why, None
        self._due = now + self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)
        if was_up or not self._told:
            self._tell(Change("embedded", why))

    def _drop(self) -> None:
        worker, self._worker, self._probing = self._worker, None, None
        if worker is not None:
            worker.end(0.0)

    def _tell(self, change: Change) -> None:
        self._told = True
        self.changes.append(change)
