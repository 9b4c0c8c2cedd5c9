"""What the agent tells its courier, written by a thread: the agent waits for nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Mapping

from ..events.wire import Json

_BATCH = 256


class Outbox:
    """Lines of JSON to a socket. Decisions are dropped and counted where too many wait; nothing else is."""

    def __init__(self, sock: socket.socket, most: int) -> None:
        """`most`: decisions that may wait. The socket is somebody else's to close."""
        self._socket, self._most = sock, most
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = False
        self.dropped = 0
        """Decisions that found it full, or known to have nobody at the other end."""
        self.accepted = 0
        """All others; how many of them arrived, the other end knows."""
        self._thread = threading.Thread(target=self._run, name="krie-outbox", daemon=True)
        self._thread.start()

    def tell(self, message: Mapping[str, Json]) -> None:
        """Something that must arrive, as long as there is somebody."""
        self._put(json.dumps(message))

    def decision(self, line: str) -> None:
        """One decision as a line of JSON, without its end."""
        if len(self._lines) >= self._most or self._closing:
            self.dropped += 1
        else:
            self.accepted += 1
            self._put(line)

    def close(self, timeout_s: float) -> None:
        """Send what waits, as far as that works in time."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _put(self, line: str) -> None:
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while not self._closing or self._lines:
            self._wake.wait()
            self._wake.clear()
            while self._lines:
                batch = [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]
                try:
                    self._socket.sendall("".join(f"{line}\n" for line in batch).encode("utf-8", "backslashreplace"))
                except OSError:  # it has gone, which whoever reads from it notices
                    self._closing = True
                    self._lines.clear()
                    return
