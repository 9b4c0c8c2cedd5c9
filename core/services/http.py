"""One HTTP request to a service, with a bound for everything that its other end could make long or large.

No proxy and no user of the environment is believed, and no redirect leaves the service's own scheme, host and port: a
token must not reach anybody else.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

from ..errors import ConfigError, KrieError
from ..service import Service
from ..trust import read_token, read_trusted
from ..version import version

_CONNECT_S = 10.0
_SILENT_S = 30.0
"""Longest time between two pieces of an answer."""
_MOST_REDIRECTS = 3
_PIECE = 1 << 16
_LONGEST_SHOWN = 300
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer to one request."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""


class ServiceError(KrieError):
    """A request failed. `status` is the answer's, 0 where there was none."""

    def __init__(self, problem: str, status: int = 0) -> None:
        self.status = status
        super().__init__(problem)


def check_files(service: Service) -> None:
    """Read all files that it names. Raises `ConfigError`, `UntrustedFileError`."""
    _context(service)
    _token(service)


def request(
    service: Service,
    method: str,
    *,
    most_bytes: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    silent_s: float = _SILENT_S,
) -> Answer:
    """Ask, and take the whole answer, whatever its status is.

    `most_bytes` bounds the body, `seconds` everything from the connection to its last byte, `silent_s` each wait.
    Raises `ServiceError`, `ConfigError`.
    """
    sent = {"User-Agent": f"krie/{version()}", "Accept-Encoding": "identity", **(headers or {})}
    if token := _token(service):
        sent["Authorization"] = f"Bearer {token}"
    context = _context(service)
    deadline = _Deadline(seconds)
    url = service.url
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = _once(url, context, method, sent, body, most_bytes, min(silent_s, seconds), deadline)
            if deadline.over:  # to who reads headers, their end and that of the connection are the same
                raise TimeoutError
            if answer.status not in _REDIRECTS:
                return answer
            url = _followed(url, answer)
    except (HTTPError, OSError, ValueError) as error:
        if deadline.over:
            raise ServiceError(f"{service.shown}: the answer took longer than {seconds:g} s") from error
        raise ServiceError(f"{service.shown}: {_reason(error)}") from error
    finally:
        deadline.close()
    raise ServiceError(f"{service.shown}: redirects more than {_MOST_REDIRECTS} times")


def _once(
    url: str,
    context: ssl.SSLContext | None,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    most_bytes: int,
    silent_s: float,
    deadline: _Deadline,
) -> Answer:
    parts = urlsplit(url)
    with _pool(url, context, silent_s, deadline) as pool:
        response = pool.urlopen(
            method,
            f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
            body=body,
            headers=dict(headers),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        try:
            received = {name.lower(): value for name, value in response.headers.items()}
            if response.status in _REDIRECTS or method == "HEAD":
                return Answer(response.status, b"", received)
            if received.get("content-encoding", "identity") != "identity":
                raise ServiceError(f"{parts.hostname}: the answer is compressed, which was not asked for")
            return Answer(response.status, _read(response, received, most_bytes, parts.hostname or ""), received)
        finally:
            response.close()


def _read(response: Any, headers: Mapping[str, str], most_bytes: int, host: str) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise ServiceError(f"{host}: the answer has {declared} bytes; {most_bytes} are the most that is taken")
    content = bytearray()
    # Not `read`: to http.client a chunk of length -1 is all that follows, without a bound.
    while piece := response.read1(_PIECE, decode_content=False):
        content += piece
        if len(content) > most_bytes:
            raise ServiceError(f"{host}: the answer has more than {most_bytes} bytes, the most that is taken")
    return bytes(content)


def _followed(url: str, answer: Answer) -> str:
    """Where a redirect leads, if that is the same service."""
    target = urljoin(url, answer.headers.get("location", ""))
    if _origin(target) != _origin(url):
        where = urlsplit(target)
        raise ServiceError(
            f"{urlsplit(url).hostname}: redirects to {_shown(f'{where.scheme}://{where.netloc}')}, which is not "
            "followed; configure that address if it is to be believed",
            answer.status,
        )
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@contextmanager
def _pool(
    url: str, context: ssl.SSLContext | None, silent_s: float, deadline: _Deadline
) -> Iterator[urllib3.HTTPConnectionPool]:
    host, port = urlsplit(url).hostname or "", urlsplit(url).port
    timeout = urllib3.Timeout(connect=min(_CONNECT_S, silent_s), read=silent_s)
    pool: urllib3.HTTPConnectionPool
    if context is not None:
        pool = urllib3.HTTPSConnectionPool(host, port, timeout=timeout, maxsize=1, ssl_context=context)
        pool.ConnectionCls = _watched(HTTPSConnection, deadline.watch)
    else:
        pool = urllib3.HTTPConnectionPool(host, port, timeout=timeout, maxsize=1)
        pool.ConnectionCls = _watched(HTTPConnection, deadline.watch)
    try:
        yield pool
    finally:
        pool.close()


def _watched(base: type[Any], watch: Callable[[socket.socket], None]) -> type[Any]:
    class Watched(base):  # type: ignore[misc]
        """Tells of its socket: time-outs of sockets bound each read of the headers, and not all of them together."""

        def connect(self) -> None:
            super().connect()
            watch(self.sock)

    return Watched


class _Deadline:
    """Ends a connection when the time is up, whatever is being read from it."""

    def __init__(self, seconds: float) -> None:
        """The time is up so many seconds from now."""
        self.over = False
        self._descriptor = -1
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        """The connection is this one by now."""
        with self._lock:
            self._forget()
            self._descriptor = os.dup(connection.fileno())
            if self.over:
                self._shut()

    def close(self) -> None:
        """It came in time, or failed."""
        self._timer.cancel()
        with self._lock:
            self._forget()

    def _end(self) -> None:
        with self._lock:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._descriptor >= 0:
            with socket.socket(fileno=os.dup(self._descriptor)) as other:
                try:
                    other.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # it has ended by itself

    def _forget(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _context(service: Service) -> ssl.SSLContext | None:
    if urlsplit(service.url).scheme != "https":
        return None
    try:
        authorities = read_trusted(Path(service.ca)).decode("ascii") if service.ca else None
        context = ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(service.ca, f"holds no certificates of authorities as PEM: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if service.certificate:
        files = [each for each in (service.certificate, service.key) if each]
        for each in files:
            read_trusted(Path(each))
        try:
            context.load_cert_chain(files[0], files[-1], password="")  # else OpenSSL asks for one on the terminal
        except (ssl.SSLError, ValueError, OSError) as error:
            raise ConfigError(" and ".join(files), f"are not a certificate and its private key: {error}") from error
    return context


def _token(service: Service) -> str:
    return read_token(Path(service.token)) if service.token else ""


def _reason(error: Exception) -> str:
    """What urllib3 says, without what it wraps it into."""
    inner: BaseException = error
    while isinstance(getattr(inner, "reason", None), BaseException):
        inner = inner.reason  # type: ignore[attr-defined]
    if isinstance(inner, NewConnectionError) and isinstance(inner.__cause__, OSError) and inner.__cause__.strerror:
        return _shown(f"cannot be reached: {inner.__cause__.strerror}")
    text = str(inner).rpartition(">: ")[2] or type(inner).__name__
    return _shown(text)


def _shown(text: str) -> str:
    """What the other end chose, for a message."""
    return "".join(each if each.isprintable() else "?" for each in text[:_LONGEST_SHOWN])
