"""opa-python-client for a server that is not trusted: one connection kept open, no retries, no redirects, no proxy of
the environment, answers within bounds. To be used in the process of `krie.opa.worker` only.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from opa_client.opa import OpaClient  # type: ignore[import-untyped]
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from ..config import OpaConfig
from ..trust import read_token, require_trusted_peer, require_trusted_socket

MOST_ANSWERED = 4 << 20
"""Bytes of an answer's body."""
_PIECE = 1 << 16
_PORT = 8181


class RefusedAnswer(Exception):
    """What the server answered is not taken; the text says why."""


class Declined(Exception):
    """The server says that it cannot decide this: an error in the policy, as it sees it."""


class _Bounded(Session):
    """A session that believes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # else all that it ever set is sent each time

    def send(self, request: PreparedRequest, **options: Any) -> Response:
        """Send, and read the answer up to its bound. Raises `RefusedAnswer`, `Declined`."""
        options |= {"allow_redirects": False, "stream": True}
        response = super().send(request, **options)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise RefusedAnswer("it packs its answers, which it was asked not to do")
        body = bytearray()
        # Not `iter_content`: to that a chunk of length -1 is all that follows, without a bound.
        while piece := response.raw.read1(_PIECE, decode_content=False):
            body += piece
            if len(body) > MOST_ANSWERED:
                raise RefusedAnswer(f"its answer is larger than {MOST_ANSWERED >> 20} MiB")
        if response.status_code == 500 and b'"internal_error"' in body:
            raise Declined(" ".join(body[:200].decode(errors="replace").split()))
        if response.status_code != 200:
            raise RefusedAnswer(_refusal(response.status_code))
        response._content = bytes(body)  # noqa: SLF001 - what `content` would have read by itself, without a bound
        return response

    def get_redirect_target(self, _response: Response) -> str | None:
        """Nowhere. Where there is a target, `requests` reads all of the answer, even if redirects are not followed."""
        return None


def _refusal(status: int) -> str:
    hints = {
        401: "; look at opa.token",
        403: "; look at opa.token",
        404: "; is a bundle of KRIe in force there?",
    }
    return f"it answers with HTTP status {status}{hints.get(status, '')}"


class _UnixConnection(HTTPConnection):
    """HTTP over a socket of this machine; `host` is its path, quoted."""

    path = ""

    def connect(self) -> None:
        """Connect. Raises `UntrustedFileError` for a socket that anybody could have put there."""
        owner = require_trusted_socket(Path(self.path))
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if isinstance(self.timeout, int | float):
            made.settimeout(self.timeout)
        try:
            made.connect(self.path)
            require_trusted_peer(made, Path(self.path), owner)
        except BaseException:
            made.close()
            raise
        self.sock = made


class _UnixAdapter(HTTPAdapter):
    """Sends all requests to one socket."""

    def __init__(self, path: str) -> None:
        connection = type("_Connection", (_UnixConnection,), {"path": path})
        self._pool = HTTPConnectionPool("localhost", maxsize=1)
        self._pool.ConnectionCls = connection
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *_arguments: Any, **_options: Any) -> HTTPConnectionPool:
        """The one pool that there is."""
        return self._pool

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()
        super().close()


class Client(OpaClient):  # type: ignore[misc]
    """The client of one server. Its methods raise `RefusedAnswer`, `Declined` and what `requests` raises."""

    def __init__(self, config: OpaConfig) -> None:
        """Connect to nothing yet. Reads the token; raises `ConfigError`, `UntrustedFileError`."""
        self._socket = config.url.removeprefix("unix://") if config.url.startswith("unix://") else ""
        parts = urlsplit("http://localhost" if self._socket else config.url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        token = read_token(Path(config.token)) if config.token else None
        super().__init__(
            host=f"[{host}]" if ":" in host else quote(host),
            port=parts.port or _PORT,
            ssl=(config.ca or True) if secure else False,
            cert=((config.certificate, config.key) if config.key else config.certificate) or None,
            token=token,
            retries=0,
            timeout=config.timeout_ms / 1000,
        )

    def _init_session(self) -> Session:
        session = _Bounded()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _UnixAdapter(self._socket) if self._socket else HTTPAdapter(max_retries=0))
        session.headers.update(self.headers or {})
        if self.ssl:
            session.verify = self.ssl
        session.cert = self.cert
        return session

    def answer(self, package: str, rule: str, document: Mapping[str, Any]) -> Any:
        """What a rule gives for an input, with the revisions of the bundles in force: the whole body."""
        options = {"provenance": "true", "strict-builtin-errors": "true"}
        return self.query_rule(document, package, rule, options)
