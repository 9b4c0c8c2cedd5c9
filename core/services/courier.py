"""The process that talks to OPA's services, one thread for each, and to the agent by lines of JSON.

It holds what may take long or go wrong: names that do not resolve, servers that hang, bytes that anybody may have sent.
It ends at once when the agent's end of its socket does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

from ..child import Link, limit_memory
from ..config import Config
from ..events.wire import Json
from .configured import services_of
from .counter import Counter
from .status_report import StatusReport
from .thread import Message

MEMORY_MIB = 512
"""Of address space, for bundles as large as they may be; what is resident is some 40."""
_STACK_BYTES = 1 << 20
_PIECE = 1 << 16


class AgentLink:
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


def run(config: Config, labels: Mapping[str, str], taken: Counter, link: Link) -> None:
    """The process; `taken` counts the decisions that came.

    Raises `ConfigError` for files of the configuration that cannot be used by now.
    """
    # Only here: the libraries that these need take 15 MB, and the agent needs none of them.
    from .logs_thread import LogsThread  # noqa: PLC0415
    from .status_thread import StatusThread  # noqa: PLC0415

    threading.stack_size(_STACK_BYTES)
    limit_memory(MEMORY_MIB)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # by which a mask without end ends: see `decisions`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    link.socket.settimeout(None)
    agent = AgentLink(link.socket)
    services = services_of(config)
    status = StatusReport(labels, services)
    hear: dict[str, Callable[[Message], None]] = {"policy": lambda it: status.in_force(str(it["revision"]))}
    if "bundle" in services:
        from .bundle_thread import BundleThread  # noqa: PLC0415

        bundle = BundleThread(config, agent.tell, status)
        hear["bundle"] = bundle.hear
        _start("bundle", bundle.run)
    if "decision_logs" in services:
        logs = LogsThread(config, agent.tell, status, labels, taken)
        hear["decision_logs"] = logs.hear
        _start("logs", logs.run)
    if "status" in services:
        _start("status", StatusThread(config, agent.tell, status).run)
    next_line = agent.lines()
    while line := next_line():
        message = json.loads(line)
        hear[message["service"]](message)


def _start(name: str, action: Callable[[], None]) -> None:
    """Run it in a thread; what it raises ends this process, and the agent starts another."""

    def ended_by_errors() -> None:
        try:
            action()
        except BaseException:
            traceback.print_exc()  # into what the agent tells of this process's end
            sys.stderr.flush()
            os._exit(1)

    threading.Thread(target=ended_by_errors, name=f"krie-{name}", daemon=True).start()
