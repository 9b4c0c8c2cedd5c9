"""The agent's socket: root asks how things stand, or takes back what was decided. One request, one answer, as JSON."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..processes.peer import Peer

SOCKET = "agent.sock"
ANSWER_BYTES = 1 << 20
"""Room of whoever asks. The socket's, `net.core.wmem_max`, may be less."""
_REQUEST_BYTES = 4096
_CLIENTS, _CLIENT_S = 8, 5.0


@dataclass(frozen=True, slots=True)
class _Client:
    connection: socket.socket
    peer: Peer
    until: float


class Control:
    """Serves requests between events; a client that is slow or sends nonsense holds nobody up."""

    def __init__(self, folder: Path, answer: Callable[[dict[str, Any], Peer], dict[str, Any]]) -> None:
        """`answer` may raise `ValueError`, whose text is then the answer. Raises `ConfigError`."""
        self._answer = answer
        self._clients: dict[int, _Client] = {}
        self._paused = False
        self._path = folder / SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._path.unlink(missing_ok=True)  # the lock is held: whoever made it has gone
            mask = os.umask(0o177)
            try:
                self._socket.bind(str(self._path))
            finally:
                os.umask(mask)
        except OSError as error:
            self._socket.close()
            raise ConfigError("agent.run_dir", f"{self._path} cannot be made: {error.strerror or error}") from error
        self._socket.listen(_CLIENTS)
        self._socket.setblocking(False)

    def wait_on(self, poll: select.epoll) -> None:
        """Let the agent wake up for requests."""
        self._poll = poll
        poll.register(self._socket.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Take what has come, and let those go who took too long."""
        while len(self._clients) < _CLIENTS and self._accept():
            pass
        now = time.monotonic()
        for client in list(self._clients.values()):
            try:
                request = client.connection.recv(_REQUEST_BYTES + 1)
            except BlockingIOError:
                if now >= client.until:
                    self._close(client)
                continue
            except OSError:
                request = b""
            if request:
                self._reply(client, request)
            self._close(client)

    def _pause(self) -> None:
        """Not to be woken by who waits and cannot be let in, as where no further file may be opened."""
        self._poll.unregister(self._socket.fileno())
        self._paused = True

    def resume(self) -> None:
        """Try again whom could not be let in. To be called at times."""
        if self._paused:
            self._paused = False
            self._poll.register(self._socket.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Let everybody go, and remove the socket."""
        for client in list(self._clients.values()):
            self._close(client)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> bool:
        if self._paused:
            return False
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            return False
        except OSError:
            self._pause()
            raise
        connection.setblocking(False)
        tgid, uid, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            connection.close()  # the socket's mode lets nobody else in; a descriptor may have been handed on
            return True
        self._clients[connection.fileno()] = _Client(connection, Peer(tgid, uid), time.monotonic() + _CLIENT_S)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        return True

    def _close(self, client: _Client) -> None:
        del self._clients[client.connection.fileno()]
        self._poll.unregister(client.connection.fileno())
        client.connection.close()

    def _reply(self, client: _Client, raw: bytes) -> None:
        answer: dict[str, Any]
        try:
            request = json.loads(raw) if len(raw) <= _REQUEST_BYTES else None
            if not isinstance(request, dict):
                raise ValueError("a request is a JSON object of at most 4096 bytes")
            answer = self._answer(request, client.peer)
        except (ValueError, RecursionError) as error:
            answer = {"error": str(error)}
        with suppress(OSError):  # the client has gone
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BYTES)
            _send(client.connection, json.dumps(answer).encode())


def _send(connection: socket.socket, answer: bytes) -> None:
    try:
        if len(answer) <= ANSWER_BYTES:
            connection.send(answer)
            return
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
    connection.send(json.dumps({"error": f"its answer of {len(answer)} bytes does not fit into its socket"}).encode())
