"""A real OPA server, and one that answers whatever a test wants."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from krie.opa.server import OpaServer
from krie.policy.bundle import bundle_of
from krie.policy.sources import PolicySources
from krie.testing.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
BINARY = ROOT / ".cache/tools/opa"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Opa:
    """`opa run --server` with a bundle that it looks at again whenever the file changes."""

    def __init__(self, folder: Path, sources: PolicySources, *options: str, unix: bool = False) -> None:
        self.bundle, self._options = folder / "bundle.tar.gz", options
        self.socket = folder / "opa.sock"
        self.port = free_port()
        self._address = f"unix://{self.socket}" if unix else f"127.0.0.1:{self.port}"
        self.url = self._address if unix else f"http://{self._address}"
        self.log = folder / "opa.log"
        self.serve(sources)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def serve(self, sources: PolicySources) -> None:
        """Put another bundle in place, by a rename."""
        new = self.bundle.with_suffix(".new")
        new.write_bytes(bundle_of(sources).to_bytes())
        new.rename(self.bundle)

    def start(self) -> None:
        command: list[str | Path] = [
            BINARY,
            "run",
            "--server",
            "--addr",
            self._address,
            "--log-level",
            "error",
            "--watch",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._options, "--bundle", self.bundle], stdout=log, stderr=log, env={"HOME": "/nowhere"}
            )
        end = time.monotonic() + PATIENCE_S
        while not self._listens():
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def _listens(self) -> bool:
        made = socket.socket(socket.AF_UNIX if self._address.startswith("unix") else socket.AF_INET)
        with made, suppress(OSError):
            made.connect(str(self.socket) if self._address.startswith("unix") else ("127.0.0.1", self.port))
            return True
        return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:  # the kernel tells of it once each of its threads stands still
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)


@contextmanager
def running(folder: Path, sources: PolicySources, *options: str, unix: bool = False) -> Iterator[Opa]:
    made = Opa(folder, sources, *options, unix=unix)
    try:
        yield made
    finally:
        made.end()


Reply = Callable[[dict[str, Any]], Any]
"""What to answer to the body of a request: a document; or bytes, or pieces of them with pauses, as they are sent."""


class Hostile:
    """An HTTP server that answers as `reply` says; it may be replaced at any time."""

    def __init__(self, reply: Reply, stack: ExitStack) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        stack.callback(self._close)

    def _close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(10)
                while body := self._request(connection):
                    answer = self.reply(body)
                    if answer is None:
                        break
                    pieces = [answer] if isinstance(answer, dict | bytes) else answer
                    for piece in pieces:
                        connection.sendall(piece if isinstance(piece, bytes) else response(json.dumps(piece).encode()))

    def _request(self, connection: socket.socket) -> dict[str, Any]:
        raw = b""
        while b"\r\n\r\n" not in raw:
            piece = connection.recv(1 << 16)
            if not piece:
                return {}
            raw += piece
        head, _, body = raw.partition(b"\r\n\r\n")
        length = next(int(each[15:]) for each in head.split(b"\r\n") if each.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(1 << 16)
        self.requests.append(head)
        return dict(json.loads(body))


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def honest(revision: str, fired: Callable[[str, Any], list[Any]] = lambda _package, _document: []) -> Reply:
    """What a server with the right bundle answers."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        result = [
            {"n": each["n"], "fired": {package: fired(package, each["input"]) for package in each["packages"]}}
            for each in body["input"]["batch"]
        ]
        return {"result": result, "provenance": {"version": "1", "bundles": {"b": {"revision": revision}}}}

    return reply


def wait_until_it_decides(server: OpaServer, revision: str) -> None:
    """Until the server is found to be of use."""
    end = time.monotonic() + PATIENCE_S
    while server.engine != "opa":
        server.look(revision)
        assert time.monotonic() < end, server.to_json()
        time.sleep(0.005)
