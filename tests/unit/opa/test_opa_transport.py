"""With whom the agent talks about decisions: certificates, tokens, and whose socket it is."""

import os
import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie.testing.patience import PATIENCE_S

from ..opa_servers import running
from .delegated import Setting, found_out, secret, sources

TOKEN = """package system.authz

default allow := false

allow if input.identity == "secret-token"
"""


def certificates(folder: Path) -> None:
    """Of an authority, of a server for 127.0.0.1 and of a client."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
    run("req", "-x509", *key, "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    run("req", "-x509", *key, "other.key", "-out", "other.pem", "-subj", "/CN=other", "-days", "2")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        run("req", "-new", *key, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "names")  # fmt: skip


def test_tls_and_a_token(tmp_path: Path, stack: ExitStack) -> None:
    certificates(tmp_path)
    (tmp_path / "authz").mkdir()
    (tmp_path / "authz/authz.rego").write_text(TOKEN)
    (tmp_path / "authz/.manifest").write_text('{"roots": ["system"]}')
    found = sources(tmp_path / "rules")
    tls = ("--tls-cert-file", f"{tmp_path}/server.pem", "--tls-private-key-file", f"{tmp_path}/server.key")
    token = ("--authentication", "token", "--authorization", "basic", "--bundle", f"{tmp_path}/authz")
    opa = stack.enter_context(running(tmp_path, found, *tls, *token))
    secret(tmp_path / "token", "secret-token\n")
    secret(tmp_path / "wrong", "other\n")
    secret(tmp_path / "two", "secret-token\nother\n")
    secret(tmp_path / "open", "secret-token\n").chmod(0o604)
    right = {"url": opa.url.replace("http:", "https:"), "ca": f"{tmp_path}/ca.pem", "token": f"{tmp_path}/token"}
    for wrong, reason in (
        ({}, ""),
        ({"ca": f"{tmp_path}/other.pem"}, "TLS fails: .*issuer|TLS fails: .*certificate"),
        ({"ca": ""}, "TLS fails: .*issuer"),
        ({"ca": f"{tmp_path}/none.pem"}, "none.pem"),
        ({"url": right["url"].replace("127.0.0.1", "localhost")}, "TLS fails: .*localhost"),
        ({"token": f"{tmp_path}/wrong"}, "HTTP status 401; look at opa.token"),
        ({"token": ""}, "HTTP status 401; look at opa.token"),
        ({"token": f"{tmp_path}/two"}, "two: must hold one token"),
        ({"token": f"{tmp_path}/open"}, "open: holds a secret, and all users can read it"),
        ({"token": f"{tmp_path}/none"}, "none: cannot be read: No such file"),
        ({"url": opa.url, "ca": ""}, "HTTP status 400|reset by peer"),  # it answers, closes, and has not read all
    ):
        setting = Setting(found, stack, **{**right, **wrong})
        change = found_out(setting)
        assert change.engine == ("embedded" if reason else "opa"), (wrong, change)
        assert re.search(reason, change.reason), (wrong, change)
        assert "secret-token" not in change.reason
        setting.server.close()


def test_a_server_that_asks_for_a_certificate(tmp_path: Path, stack: ExitStack) -> None:
    certificates(tmp_path)
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(
        running(
            tmp_path,
            found,
            "--tls-cert-file",
            f"{tmp_path}/server.pem",
            "--tls-private-key-file",
            f"{tmp_path}/server.key",
            "--tls-ca-cert-file",
            f"{tmp_path}/ca.pem",
            "--authentication",
            "tls",
        )
    )
    right = {"url": opa.url.replace("http:", "https:"), "ca": f"{tmp_path}/ca.pem"}
    own = {"certificate": f"{tmp_path}/client.pem", "key": f"{tmp_path}/client.key"}
    assert found_out(Setting(found, stack, **right, **own)).engine == "opa"
    assert "TLS fails" in found_out(Setting(found, stack, **right)).reason


def test_a_socket_that_anybody_could_have_put_there_is_told_nothing(tmp_path: Path, stack: ExitStack) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    secret(tmp_path / "token", "secret")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(sticky / "opa.sock"))
    listener.listen()
    listener.setblocking(False)
    os.chown(sticky / "opa.sock", 12345, -1)
    found = sources(tmp_path / "rules")
    setting = Setting(found, stack, url=f"unix://{sticky}/opa.sock", token=str(tmp_path / "token"))
    assert "where everybody may put things" in found_out(setting).reason
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_socket_that_was_replaced_after_the_look_is_told_nothing(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret(tmp_path / "token", "secret")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "opa.sock"))
    os.seteuid(12345)  # as whom a socket is listened at is noted then
    try:
        listener.listen()
    finally:
        os.seteuid(0)
    monkeypatch.setattr("krie.opa.client.require_trusted_socket", lambda _: 0)  # it was root's a moment ago
    setting = Setting(
        sources(tmp_path / "rules"), stack, url=f"unix://{tmp_path}/opa.sock", token=str(tmp_path / "token")
    )
    assert "user 12345 listens there, and it belongs to user 0" in found_out(setting).reason
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(PATIENCE_S)
        assert connection.recv(1) == b""  # nothing was said
