"""The process that talks to OPA's services, one thread for each, and to the agent by lines of JSON.

It holds what may take long or go wrong: names that do not resolve, servers that hang, bytes that anybody may have sent.
It ends at once when the agent's end of its socket does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from ..child import Link, limit_memory
from ..config import Config
from ..errors import KrieError, PolicyError
from ..policy.pinned import read_keys
from ..wire import Json
from .config import is_url
from .intake import Intake
from .kept import KeptBundle
from .polling import Polling

MEMORY_MIB = 512
"""Of address space, for bundles as large as they may be; what is resident is some 40."""
BUNDLE_FOLDER = "bundle"
"""Below `agent.state_dir`."""
_STACK_BYTES = 1 << 20
_PIECE = 1 << 16
Tell = Callable[[Mapping[str, Json]], None]
Message = dict[str, Json]


class Agent:
    """The agent, as this process sees it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over the socket."""
        self._socket = sock
        self._lock = threading.Lock()

    def tell(self, message: Mapping[str, Json]) -> None:
        """Tell something; whoever does so waits until it is sent. Without an agent this process ends."""
        try:
            with self._lock:
                self._socket.sendall(f"{json.dumps(message)}\n".encode())
        except OSError:
            os._exit(0)

    def lines(self) -> Callable[[], bytes | None]:
        """A function that waits for the next line; None: the agent has gone."""
        return self._socket.makefile("rb", _PIECE).readline


class BundleThread:
    """Polls, and waits for what the agent says of each bundle that is offered to it."""

    def __init__(self, config: Config, tell: Tell) -> None:
        """Raises `ConfigError`."""
        url = config.policy.bundle
        self._tell = tell
        self._polling = Polling(config.bundle, url)
        self._kept = KeptBundle(Path(config.agent.state_dir) / BUNDLE_FOLDER)
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
                    self._told_last = str(message["reason"])
                    if message["again"]:
                        self._polling.etag = ""
                elif state == "again":
                    self._intake.forget_refused()
                    self._polling.etag = ""
                    self._again.set()
            except (OSError, KrieError) as error:
                self._told("trouble", f"what is in force cannot be noted: {error}")
        if state != "again":
            self._answered.set()

    def _once(self) -> None:
        try:
            polled = self._polling.ask()
            self._tell({"service": "bundle", "state": "asked", "etag": polled.etag, "size": polled.size})
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
        if reason != self._told_last:
            self._told_last = reason
            self._tell({"service": "bundle", "state": state, "reason": reason, "status": status})


def run(config: Config, link: Link) -> None:
    """The process. Raises `ConfigError` for files of the configuration that cannot be used by now."""
    threading.stack_size(_STACK_BYTES)
    limit_memory(MEMORY_MIB)
    link.socket.settimeout(None)
    agent = Agent(link.socket)
    hear: dict[str, Callable[[Message], None]] = {}
    if is_url(config.policy.bundle):
        bundle = BundleThread(config, agent.tell)
        hear["bundle"] = bundle.hear
        _start("bundle", bundle.run)
    next_line = agent.lines()
    while line := next_line():
        message = json.loads(line)
        hear[message["service"]](message)


def _start(name: str, action: Callable[[], None]) -> None:
    """Run it in a thread; what it raises ends this process, and the agent starts another."""

    def guarded() -> None:
        try:
            action()
        except BaseException:
            traceback.print_exc()  # into what the agent tells of this process's end
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=guarded, name=f"krie-{name}", daemon=True).start()
