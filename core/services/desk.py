"""The agent's end of OPA's services: starts the courier, hears what it says, and knows which bundle is to be read.

Nothing here waits for anything: the courier is a process of its own, and what goes to it waits in a queue.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..child import Child
from ..config import Config
from ..decision import Decision
from ..enforce.enforcer import Outcome
from ..errors import KrieError
from ..events.wire import Json
from ..fork_server import ForkServer
from ..policy.bundle_file import KEPT_FOLDER, BundleFile, with_executables
from ..policy.pinned import read_keys
from ..policy.serial import refused_for_age
from ..policy.sources import PolicySources
from ..services_config import is_url
from .backoff import backoff_s
from .configured import labels, services, services_of
from .counter import Counter
from .courier import run
from .decisions import decision_line
from .early import Early
from .kept import KeptBundle
from .mask import masks
from .offers import Offered, Offers
from .outbox import Outbox

NAME = "krie-courier"
_WAITING = 8192
_PIECE = 1 << 18
_LONGEST_LINE = 4 << 20
_LAST_S, _LEAVES_WITHIN_S = 1.0, 1.0
_RESTART_MOST_S = 60.0
_WELL_S = 60.0
"""A courier that lived so long had no trouble from the start."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be told of a service."""

    service: str
    state: str
    """One of `krie.events.agent.SERVICE_STATES`; `refused`: a bundle was."""
    reason: str = ""
    count: int = 0


class Desk:
    """One for each agent. To be made before the agent has threads, since it forks a process that forks."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        """Start nothing yet. Raises `ConfigError`, `UntrustedFileError` for files that cannot be used."""
        self._config, self._clock = config, clock
        self.from_url = is_url(config.policy.bundle)
        self._services = services_of(config)
        self._keys = read_keys(config.bundle.keys) if config.policy.bundle else {}
        self._kept = KeptBundle(Path(config.agent.state_dir) / KEPT_FOLDER)
        self._active: BundleFile | None = None
        self._offers = Offers()
        self.troubles: dict[str, str] = {}
        """What is wrong now, by service."""
        self._notes: list[Note] = []
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
        if self.from_url:
            self._kept.make()
            self._kept.state()
            self._active = self._kept_before()
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

    def source(self) -> BundleFile | None:
        """The bundle that a load is to read; None: the folders. Raises `PolicyError`, `ConfigError`."""
        if self.from_url:
            offered = self._offers.read()
            return offered.file if offered is not None else self._active
        if not self._config.policy.bundle:
            return None
        return with_executables(BundleFile(Path(self._config.policy.bundle), self._keys))

    def not_usable(self, reason: str) -> bool:
        """The kept bundle cannot be loaded at start. False: there was none, so that something else is wrong."""
        if not self.from_url or self._active is None:
            return False
        self._active = None
        self._disown(reason)
        return True

    def start(self, poll: select.epoll) -> None:
        """Start the courier, if anything is for it to do."""
        self._poll = poll
        if self._courier is not None:
            poll.register(self._courier.socket, select.EPOLLIN)
        elif self._server is not None:
            self._fork(self._server.fork)

    def take_offer(self) -> bool:
        """Whether there is a bundle that was not tried yet; it counts as tried from here on."""
        return self._offers.take_fresh()

    def in_force(self, rules: int) -> None:
        """What was read by the last load is in force. Raises nothing: what cannot be noted is trouble."""
        tried = self._offers.tried()
        if tried is None:
            return
        self._active = replace(tried.file, path=self._kept.active)
        try:
            self._kept.adopt(tried.digest)
        except OSError as error:
            self._trouble("bundle", "trouble", f"it is in force, and cannot be kept: {error.strerror}")
            self._active = None
        else:
            self._well("bundle")
        self._say({"service": "bundle", "state": "in_force", "digest": tried.digest, "rules": rules})
        if (waiting := self._offers.waiting) is not None and (why := refused_for_age(waiting.serial, tried.serial)):
            self._offers.drop()
            self._refuse(waiting, why, again=False)
            self._notes.append(Note("bundle", "refused", why))

    def refused(self, reason: str, *, again: bool) -> bool:
        """What was read by the last load is not in force. `again`: it is no fault of the bundle's.

        Returns whether that was a bundle from a URL.
        """
        tried = self._offers.tried()
        if tried is None:
            return False
        self._refuse(tried, reason.partition("\n")[0], again=again)
        return True

    def try_again(self) -> None:
        """An administrator wants everything to be tried again."""
        if self.from_url:
            self._say({"service": "bundle", "state": "again"})

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

    def decided(self, kind: str, document: Mapping[str, Json], decision: Decision, outcome: Outcome, time: str) -> None:
        """One decision, of which the journal has a line with this time."""
        line = decision_line(kind, document, decision, outcome, time)
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
            self._well("courier")
            self._take(json.loads(line))
        if gone:
            self._ended()

    def tick(self) -> None:
        """Once a second: start a courier anew whose time has come."""
        lost, self._dropped = self._dropped + self._lost_in_outbox(), 0
        if lost:
            self._notes.append(
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
        notes, self._notes = self._notes, []
        return notes

    def status(self) -> dict[str, Json]:
        """For `krie status`: by service what is wrong, empty where nothing is."""
        return {name: self.troubles.get(name, "") for name in (*self._services, *self.troubles)}

    def _take(self, message: dict[str, Any]) -> None:
        service, state = str(message["service"]), str(message["state"])
        if state == "offered":
            digest = str(message["digest"])
            file = BundleFile(self._kept.offered(digest), self._keys, dict(message["executables"]))
            overtaken = self._offers.come(Offered(file, digest, message["serial"]))
            if overtaken is not None:
                self._withdraw(overtaken)
        elif state in ("refused", "trouble"):
            self._trouble(service, state, str(message["reason"]))
        elif state == "dropped":
            self._notes.append(Note(service, state, str(message["reason"]), int(message["count"])))
        elif state == "well":
            self._well(service)

    def _refuse(self, offered: Offered, why: str, *, again: bool) -> None:
        message: dict[str, Json] = {"service": "bundle", "state": "refused", "digest": offered.digest, "reason": why}
        self._say({**message, "again": again})
        self.troubles["bundle"] = why
        self._withdraw(offered)

    def _withdraw(self, offered: Offered) -> None:
        with suppress(OSError):  # the next start removes it
            self._kept.withdraw(offered.digest)

    def _well(self, service: str) -> None:
        if self.troubles.pop(service, ""):
            self._notes.append(Note(service, "well"))

    def _trouble(self, service: str, state: str, reason: str) -> None:
        self.troubles[service] = reason
        self._notes.append(Note(service, state, reason))

    def _kept_before(self) -> BundleFile | None:
        """What was in force last, if it is there."""
        if not self._kept.active.exists():
            return None
        try:
            return with_executables(BundleFile(self._kept.active, self._keys))
        except KrieError as error:
            self._disown(str(error))
            return None

    def _disown(self, reason: str) -> None:
        """The kept bundle is not in force, so that the courier must not take the server's for it."""
        self._trouble("bundle", "refused", f"the kept bundle: {reason}")
        try:
            self._kept.disown()
        except (OSError, KrieError) as error:
            self._trouble("bundle", "trouble", f"the kept bundle is not in force, which cannot be noted: {error}")

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
        self._trouble("courier", "trouble", why)

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
