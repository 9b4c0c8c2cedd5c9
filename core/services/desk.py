"""The agent's end of OPA's services: starts the courier, hears what it says, and tells it what is decided.

Nothing here waits for anything: the courier is a process of its own, and what goes to it waits in a queue.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..child import Child
from ..config import Config
from ..decision import Decision
from ..enforce.enforcer import Effect
from ..errors import KrieError
from ..events.wire import Json
from ..fork_server import ForkServer
from ..policy.sources import PolicySources
from .backoff import backoff_s
from .bundles import Bundles
from .configured import labels, services, services_of
from .counter import Counter
from .courier import run
from .decisions import decision_line
from .early import Early
from .mask import masks
from .outbox import Outbox
from .troubles import Note, Troubles

NAME = "krie-courier"
_WAITING = 8192
_PIECE = 1 << 18
_LONGEST_LINE = 4 << 20
_LAST_S, _LEAVES_WITHIN_S = 1.0, 1.0
_RESTART_MOST_S = 60.0
_WELL_S = 60.0
"""A courier that lived so long had no trouble from the start."""


class Desk:
    """One for each agent. To be made before the agent has threads, since it forks a process that forks."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        """Start nothing yet. Raises `ConfigError`, `UntrustedFileError` for files that cannot be used."""
        self._config, self._clock = config, clock
        self._services = services_of(config)
        self._troubles = Troubles()
        self.bundles = Bundles(config, self._troubles, self._say)
        self._server: ForkServer | None = None
        self._courier: Child | None = None
        self._outbox: Outbox | None = None
        self._poll: select.epoll | None = None
        self._buffer = bytearray()
        self._started, self._restart_due, self._failures = 0.0, 0.0, 0
        self._policy: dict[str, Json] = {}
        self._masks: Json = None
        self._early = Early(_WAITING)
        self._taken = Counter()
        """Decisions that came to the present courier."""
        self._dropped = 0
        self.bundles.open()
        if self._services:
            from .http import check_files  # noqa: PLC0415 - only where there are services

            for each in services(config):
                check_files(each)
            self._server = ForkServer(partial(run, config, labels(), self._taken), NAME)

    def close(self) -> None:
        """End the courier."""
        self._end()
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def start(self, poll: select.epoll) -> None:
        """Start the courier, if anything is for it to do."""
        self._poll = poll
        if self._courier is not None:
            poll.register(self._courier.socket, select.EPOLLIN)
        elif self._server is not None:
            self._fork(self._server.fork)

    def try_again(self) -> None:
        """An administrator wants everything to be tried again."""
        self.bundles.try_again()

    def policy(self, sources: PolicySources, revision: str) -> None:
        """It is in force from here on: what is told of later decisions is masked by it."""
        self._policy = {"service": "policy", "revision": revision}
        self._masks = None
        if "decision_logs" in self._services and masks(sources.files):
            files: list[Json] = [[each.place, each.text] for each in sources.files]
            self._masks = {"files": files, "data": sources.data}
        self._early.policy(self._of_policy())
        for each in self._of_policy():
            self._say(each)

    @property
    def logs_decisions(self) -> bool:
        """Whether a decision log service is configured."""
        return "decision_logs" in self._services

    def decided(self, kind: str, document: Mapping[str, Json], decision: Decision, effect: Effect, time: str) -> None:
        """One decision, of which the journal has a line with this time."""
        line = decision_line(kind, document, decision, effect, time)
        if self._outbox is not None:
            self._outbox.decision(line)
        elif not self._early.decision(line, self._of_policy()):
            self._dropped += 1

    def hear(self) -> None:
        """Take what the courier has said by now."""
        gone = False
        while self._courier is not None and not gone:
            try:
                piece = self._courier.socket.recv(_PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                piece = b""
            self._buffer += piece
            gone = not piece or len(self._buffer) > _LONGEST_LINE
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._troubles.well("courier")
            self._take(json.loads(line))
        if gone:
            self._ended()

    def tick(self) -> None:
        """Once a second: start a courier again whose time has come."""
        lost, self._dropped = self._dropped + self._lost_in_outbox(), 0
        if lost:
            self._troubles.note(
                Note(
                    "decision_logs",
                    "dropped",
                    "they came faster than they could be written, or what writes them ended",
                    lost,
                )
            )
        if self._server is None or self._poll is None or self._courier is not None:
            return
        if self._clock() >= self._restart_due:
            self._fork(self._server.soon)

    def notes(self) -> list[Note]:
        """What has happened since the last call."""
        return self._troubles.take()

    @property
    def troubles(self) -> Mapping[str, str]:
        """What is wrong now, by service."""
        return self._troubles.now

    def status(self) -> dict[str, Json]:
        """For `krie status`: by service what is wrong, empty where nothing is."""
        return {name: self.troubles.get(name, "") for name in (*self._services, *self.troubles)}

    def _take(self, message: dict[str, Any]) -> None:
        service, state = str(message["service"]), str(message["state"])
        if state == "offered":
            self.bundles.come(message)
        elif state in ("refused", "trouble"):
            self._troubles.trouble(service, state, str(message["reason"]))
        elif state == "dropped":
            self._troubles.note(Note(service, state, str(message["reason"]), int(message["count"])))
        elif state == "well":
            self._troubles.well(service)

    def _of_policy(self) -> list[dict[str, Json]]:
        """What is told of the policy in force; nothing before the first one."""
        if not self._policy:
            return []
        masks: list[dict[str, Json]] = [{"service": "decision_logs", "mask": self._masks}]
        return [self._policy, *(masks if "decision_logs" in self._services else [])]

    def _lost_in_outbox(self) -> int:
        if self._outbox is None:
            return 0
        lost, self._outbox.dropped = self._outbox.dropped, 0
        return lost

    def _say(self, message: Mapping[str, Json]) -> None:
        if self._outbox is not None:
            self._outbox.tell(message)

    def _fork(self, fork: Callable[[], Child | None]) -> None:
        """`fork`: gives None where it has none yet."""
        assert self._poll is not None
        self._started = self._clock()
        try:
            self._courier = fork()
        except KrieError as error:
            self._failed(str(error))
            return
        if self._courier is None:
            return
        self._courier.socket.settimeout(None)
        self._outbox = Outbox(self._courier.socket, _WAITING)
        self._taken.reset()
        self._early.leave(self._outbox, self._of_policy())
        self._poll.register(self._courier.socket, select.EPOLLIN)

    def _ended(self) -> None:
        lived_s = self._clock() - self._started
        self._failures = 0 if lived_s > _WELL_S else self._failures
        how = self._end()
        if signal.SIGALRM.name in how and self._masks is not None:
            # Else the next courier would end by the same mask, and fetch no bundle that has another one.
            self._masks = {"unusable": "a mask took longer than policy.decision_ms"}
        self._failed(f"the process that talks to it {how}")

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._restart_due = self._clock() + backoff_s(self._failures, _RESTART_MOST_S, 0.0)
        self._troubles.trouble("courier", "trouble", why)

    def _end(self) -> str:
        courier, self._courier = self._courier, None
        outbox, self._outbox = self._outbox, None
        self._buffer.clear()
        if courier is None:
            return ""
        if self._poll is not None:
            self._poll.unregister(courier.socket)
        if outbox is not None:
            outbox.close(_LAST_S)
        how = courier.end(_LEAVES_WITHIN_S)
        if outbox is not None:
            self._dropped += outbox.dropped + outbox.accepted - self._taken.value
        return how
