"""Requests to services: what is sent, and that nothing at the other end makes one long, large or go elsewhere."""

import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from krie.errors import ConfigError, KrieError, UntrustedFileError
from krie.service import Service, problem_of
from krie.services.http import Answer, ServiceError, check_files, request
from krie.testing.patience import PATIENCE_S

from ..web import Handle, certificate, reply, server_tls, serving

MOST = 1 << 16


def get(service: Service | str, seconds: float = PATIENCE_S, silent_s: float = PATIENCE_S) -> Answer:
    service = Service(service) if isinstance(service, str) else service
    return request(service, "GET", most_bytes=MOST, seconds=seconds, silent_s=silent_s)


def refused(handle: Handle, seconds: float = PATIENCE_S) -> str:
    with serving(handle) as server, pytest.raises(ServiceError) as caught:
        get(f"{server.url}/b", seconds)
    return str(caught.value)


def secret(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_what_is_sent_and_what_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    token = secret(tmp_path / "token", "abc.DEF-1\n")
    with serving(lambda handler: reply(handler, 418, b"tea", ETag='"1"')) as server:
        service = Service(f"{server.url}/a/b?c=d", token)
        answer = request(service, "POST", most_bytes=3, seconds=PATIENCE_S, headers={"Prefer": "x"}, body=b"sent")
        secret(tmp_path / "token", "renewed")
        get(service)
    assert (answer.status, answer.body, answer.headers["etag"]) == (418, b"tea", '"1"')
    (first, second) = server.requests
    assert (first.method, first.path, first.body) == ("POST", "/a/b?c=d", b"sent")
    assert first.headers["authorization"] == "Bearer abc.DEF-1"
    assert first.headers["prefer"] == "x"
    assert first.headers["accept-encoding"] == "identity"
    assert first.headers["user-agent"].startswith("krie/")
    assert second.headers["authorization"] == "Bearer renewed"


def test_a_body_is_bounded_whatever_it_says_to_be() -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1 << 20):
            handler.wfile.write(bytes(MOST))

    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(1 << 20):
            handler.wfile.write(b"10000\r\n" + bytes(MOST) + b"\r\n")

    def of_negative_length(handler: BaseHTTPRequestHandler) -> None:  # which http.client takes for all that follows
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"-1\r\n")
        for number in range(1 << 10):
            handler.wfile.write(bytes(MOST))
            sent.append(number)

    sent: list[int] = []
    assert "has 65537 bytes; 65536 are the most" in refused(lambda handler: reply(handler, body=bytes(MOST + 1)))
    assert "has more than 65536 bytes" in refused(endless)
    assert "has more than 65536 bytes" in refused(chunked)
    assert "has more than 65536 bytes" in refused(of_negative_length)
    assert len(sent) < 1 << 10  # the connection was left before all of it was taken


def test_a_body_that_is_cut_off_is_none() -> None:
    assert "IncompleteRead" in refused(lambda handler: reply(handler, body=b"x", Content_Length="9"))


def _drip(where: str) -> Handle:
    def handle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 9999\r\n\r\n" if where == "body" else b"X-A: "))
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            handler.wfile.write(b"a")
            time.sleep(0.01)

    return handle


@pytest.mark.parametrize("where", ["headers", "body"])
def test_an_answer_that_drips_ends_in_time(where: str) -> None:
    started = time.monotonic()
    assert "took longer than 0.3 s" in refused(_drip(where), 0.3)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_silent_server_ends_in_time() -> None:
    end = threading.Event()
    with serving(lambda _: end.wait(PATIENCE_S)) as server:
        with pytest.raises(ServiceError, match="Read timed out"):
            get(server.url, silent_s=0.1)
        end.set()


def test_nobody_there() -> None:
    with serving(reply) as server:
        pass
    with pytest.raises(ServiceError, match=r"/\S*: cannot be reached: Connection refused$"):
        get(server.url)


@pytest.mark.parametrize(
    "body", [b"nonsense\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300]
)
def test_an_answer_that_is_no_http(body: bytes) -> None:
    assert refused(lambda handler: handler.wfile.write(body))


def test_a_compressed_answer_was_not_asked_for() -> None:
    assert "compressed" in refused(lambda handler: reply(handler, body=b"x", Content_Encoding="gzip"))


def test_redirects_stay_where_the_service_is() -> None:
    def handle(handler: BaseHTTPRequestHandler) -> None:
        where = {"/a": "/b", "/b": "/c?x=1"}.get(handler.path)
        reply(handler, 302, Location=where) if where else reply(handler, body=handler.path.encode())

    with serving(handle) as server:
        assert get(f"{server.url}/a").body == b"/c?x=1"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.2:1/b", "redirects to http://127.0.0.2:1, which is not followed"),
        ("//127.0.0.1:1/b", "redirects to http://127.0.0.1:1,"),
        ("file:///etc/shadow", "redirects to file://,"),
        ("/b", "redirects more than 3 times"),
    ],
)
def test_redirects_elsewhere_and_without_end_are_refused(location: str, why: str) -> None:
    assert why in refused(lambda handler: reply(handler, 307, Location=location))


def test_where_a_redirect_leads_is_told_in_few_visible_characters() -> None:
    location = "http://evil\x1bc\x9b31m" + "A" * 60_000
    said = refused(lambda handler: reply(handler, 307, Location=location))
    assert "redirects to http://evil?c?31mAAA" in said
    assert len(said) < 500


def test_a_redirect_to_plain_http_is_refused(tmp_path: Path) -> None:
    ca = certificate("ca").written(tmp_path, "ca")[0]
    with (
        serving(lambda handler: reply(handler, 302, Location="http://127.0.0.1/b"), server_tls(tmp_path)) as server,
        pytest.raises(ServiceError, match="redirects to http://127.0.0.1,"),
    ):
        get(Service(server.url, ca=ca))


def test_the_own_authority_is_believed_and_no_other(tmp_path: Path) -> None:
    own, other = (certificate(name).written(tmp_path, name)[0] for name in ("ca", "other"))
    with serving(lambda handler: reply(handler, body=b"x"), server_tls(tmp_path)) as server:
        assert get(Service(server.url, ca=own)).body == b"x"
        for ca in ("", other):
            with pytest.raises(ServiceError, match="certificate verify failed"):
                get(Service(server.url, ca=ca))


def test_a_certificate_is_for_its_host_alone(tmp_path: Path) -> None:
    own = certificate("ca").written(tmp_path, "ca")[0]
    with (
        serving(reply, server_tls(tmp_path, host="127.0.0.2")) as server,
        pytest.raises(ServiceError, match="certificate"),
    ):
        get(Service(server.url, ca=own))


def test_a_client_s_certificate(tmp_path: Path) -> None:
    own = certificate("ca").written(tmp_path, "ca")[0]
    mine, key = certificate("client", "clients").written(tmp_path, "client")
    both = secret(tmp_path / "both.pem", Path(mine).read_text() + Path(key).read_text())
    context = server_tls(tmp_path, client_ca="clients")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 lets a client without one send its request first
    with serving(lambda handler: reply(handler, body=b"x"), context) as server:
        assert get(Service(server.url, ca=own, certificate=mine, key=key)).body == b"x"
        assert get(Service(server.url, ca=own, certificate=both)).body == b"x"
        with pytest.raises(ServiceError):
            get(Service(server.url, ca=own))


def test_plain_http_to_where_tls_is_spoken_and_the_other_way_round(tmp_path: Path) -> None:
    with serving(reply, server_tls(tmp_path)) as server, pytest.raises(ServiceError):
        get(server.url.replace("https", "http"))
    with serving(reply) as server, pytest.raises(ServiceError, match="SSL"):
        get(server.url.replace("http", "https"))


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (Service("ftp://a/b"), "must be a URL that begins with https://"),
        (Service("https:///b"), "must be a URL"),
        (Service("https://a:b/c"), "is not a URL"),
        (Service("https://a:99999/c"), "is not a URL"),
        (Service("https://[::1/c"), "is not a URL"),
        (Service("https://user:word@a/b"), "holds a password"),
        (Service("https://a/b#c"), "holds a fragment"),
        (Service("https://a/b\r\nX: y"), "holds a"),
        (Service("http://a/b", token="/t"), "in the clear"),
        (Service("http://a/b", certificate="/t"), "in the clear"),
        (Service("http://a/b"), ""),
        (Service("http://localhost/b", token="/t"), ""),
        (Service("https://a/b?sig=x", token="/t"), ""),
    ],
)
def test_addresses(service: Service, why: str) -> None:
    assert why in problem_of(service)
    assert bool(why) == bool(problem_of(service))


def test_what_a_signed_url_carries_is_not_shown() -> None:
    with serving(reply) as server:
        pass
    with pytest.raises(ServiceError) as caught:
        get(f"{server.url}/b?X-Amz-Signature=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: file.chmod(0o604), "all users can read it"),
        (lambda file: file.chmod(0o622), "can be changed"),
        (lambda file: file.write_text(""), "must hold one token"),
        (lambda file: file.write_text("a\nb"), "must hold one token"),
        (lambda file: file.write_text("é"), "must hold one token"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8"),
        (lambda file: file.unlink(), "cannot be read"),
    ],
)
def test_a_token_that_is_none(change: Callable[[Path], object], why: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    secret(file, "abc")
    change(file)
    with pytest.raises(ConfigError, match=why):
        check_files(Service("https://a", token=str(file)))


def test_certificates_that_are_none(tmp_path: Path) -> None:
    mine, key = certificate("client", "clients").written(tmp_path, "client")
    other = certificate("server", "ca").written(tmp_path, "server")[1]
    no = secret(tmp_path / "no", "nonsense")
    for service in (
        Service("https://a", ca=no),
        Service("https://a", certificate=no),
        Service("https://a", certificate=mine),
        Service("https://a", certificate=mine, key=other),
    ):
        with pytest.raises(ConfigError, match="certificate"):
            check_files(service)
    check_files(Service("https://a", certificate=mine, key=key))
    Path(mine).chmod(0o666)
    with pytest.raises(UntrustedFileError):
        check_files(Service("https://a", certificate=mine, key=key))


def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    private = ec.generate_private_key(ec.SECP256R1())
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    key = secret(tmp_path / "locked", locked.decode())
    with pytest.raises(KrieError, match="are not a certificate and its private key"):
        check_files(
            Service(
                "https://a",
                certificate=certificate("client", "clients").written(tmp_path, "c")[0],
                key=key,
            )
        )
