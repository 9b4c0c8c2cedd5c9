"""Decisions by an OPA server: a real one that is stopped, killed, restarted, given another bundle; and hostile ones.

Whatever a server does, each decision comes in time and is what the embedded engine says.
"""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie import fork_server
from krie.child import Child
from krie.config import OpaConfig
from krie.decision import Action
from krie.opa.server import Change, OpaServer
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicySources, read_sources
from krie.testing.patience import PATIENCE_S

from ..opa_servers import Hostile, Reply, honest, response, running, wait_until_it_decides

RULES = """package krie.site

rules contains {"id": "SITE1", "action": "kill", "scope": "process", "ttl_s": 60} if input.event.kind == "a.b"

rules contains {"id": "SITE2", "action": "override", "errno": 13} if {
	input.event.kind == "a.b"
	input.event.number > data.limit
}

# Different for each number, so that the memo is of no use.
rules contains {"id": "SITE3", "action": "log"} if to_number(input.event.text) == 5
"""
OTHER = 'package krie.other\n\nrules contains {"id": "OTHER", "action": "log"} if input.event.kind == "a.b"\n'
SLACK_S = 0.5


def sources(folder: Path, limit: int = 5) -> PolicySources:
    folder.mkdir(exist_ok=True)
    (folder / "site.rego").write_text(RULES)
    (folder / "other.rego").write_text(OTHER)
    return read_sources([folder], {"limit": limit})


def event(number: int, text: str = "5") -> tuple[str, dict[str, Any]]:
    return "a.b", {"event": {"kind": "a.b", "number": number, "text": text}, "process": {}}


class Setting:
    """A policy that a server decides, and the same one decided here."""

    def __init__(
        self,
        found: PolicySources,
        stack: ExitStack,
        clock: Any = time.monotonic,
        **config: Any,
    ) -> None:
        self.held = 0
        self.server = OpaServer(OpaConfig.model_validate({"timeout_ms": 1000, **config}), self._hold, clock)
        stack.callback(self.server.close)
        self.use(found)

    def use(self, found: PolicySources) -> None:
        engine = EmbeddedEngine(found)
        self.revision = found.revision
        self.here = Policy(engine, on_error=Action.LOG, memo=0)
        self.policy = Policy(engine, on_error=Action.LOG, memo=0, many=Delegated(self.server, engine))

    def _hold(self) -> None:
        self.held += 1

    def until_opa(self) -> None:
        wait_until_it_decides(self.server, self.revision)

    def decided(self, *events: tuple[str, dict[str, Any]]) -> str:
        """Which engine decided; whatever it is, the decisions are those of the embedded one."""
        found = self.policy.decide_many(events)
        assert [each._replace(engine="") for each in found] == self.here.decide_many(events)
        (engine,) = {each.engine for each in found}
        return engine

    def changes(self) -> list[Change]:
        found = list(self.server.changes)
        self.server.changes.clear()
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing is left, and no zombie


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_it_decides_as_the_embedded_engine_does(tmp_path: Path, stack: ExitStack, unix: bool) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found, unix=unix))
    setting = Setting(found, stack, url=opa.url, batch=8)
    assert setting.decided(event(1)) == "embedded"  # it was not waited for
    setting.until_opa()
    assert setting.changes() == [Change("opa", "")]
    assert setting.decided(event(1)) == "opa"
    assert setting.decided(*(event(number) for number in range(20))) == "opa"
    assert (setting.server.answered, setting.server.stood_in) == (21, 1)
    assert setting.policy.decide(*event(6)).to_json()["engine"] == "opa"
    assert "engine" not in setting.here.decide(*event(6)).to_json()


def test_what_no_rule_concerns_is_asked_nowhere(tmp_path: Path, stack: ExitStack) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "other.rego").write_text(OTHER)
    found = read_sources([folder], {})
    server = Hostile(honest(found.revision), stack)
    setting = Setting(found, stack, url=server.url)
    setting.until_opa()
    asked = len(server.requests)
    (decision,) = setting.policy.decide_many([("x.y", {"event": {"kind": "x.y"}})])
    assert (decision.engine, len(server.requests)) == ("", asked)


def test_a_mixed_batch_keeps_its_order_and_asks_once_about_the_same(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    setting.policy = Policy(
        EmbeddedEngine(found), on_error=Action.LOG, memo=100, many=Delegated(setting.server, EmbeddedEngine(found))
    )
    setting.until_opa()
    events = [event(number % 7) for number in range(50)] + [("x.y", {"event": {"kind": "x.y", "text": "5"}})]
    decisions = setting.policy.decide_many(events)
    assert [each._replace(engine="") for each in decisions] == setting.here.decide_many(events)
    assert setting.server.answered == 8
    assert setting.policy.remembered == 43
    assert setting.policy.decide_many(events) == decisions
    assert (setting.server.answered, setting.policy.remembered) == (8, 94)


def test_a_stopped_server_costs_one_wait_and_it_is_back_by_itself(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url, timeout_ms=300)
    setting.until_opa()
    opa.signal(signal.SIGSTOP)
    started = time.monotonic()
    assert setting.decided(event(1), event(2)) == "embedded"
    assert 0.2 < time.monotonic() - started < 0.3 + SLACK_S
    assert setting.held >= 5  # the ring was read meanwhile
    started = time.monotonic()
    for number in range(50):
        assert setting.decided(event(number)) == "embedded"
    assert time.monotonic() - started < SLACK_S  # nobody waits again
    opa.signal(signal.SIGCONT)
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"
    assert setting.changes() == [
        Change("opa", ""),
        Change("embedded", "it gave no answer within 300 ms (opa.timeout_ms)"),
        Change("opa", ""),
    ]


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_killed_server_that_is_started_again(tmp_path: Path, stack: ExitStack, unix: bool) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found, unix=unix))
    setting = Setting(found, stack, url=opa.url)
    setting.until_opa()
    opa.end()
    assert setting.decided(event(1)) == "embedded"
    _, change = setting.changes()
    assert change.reason.startswith("it cannot be reached: ")
    assert setting.server.to_json()["reason"] == change.reason
    opa.start()
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"
    assert setting.changes() == [Change("opa", "")]


def test_a_server_that_is_not_there_is_told_once(tmp_path: Path, stack: ExitStack) -> None:
    setting = Setting(sources(tmp_path / "rules"), stack, url="http://127.0.0.1:9")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert setting.decided(event(1)) == "embedded"
        time.sleep(0.01)
    assert setting.changes() == [Change("embedded", "it cannot be reached: Connection refused")]


def test_pauses_grow_and_are_forgotten(tmp_path: Path, stack: ExitStack) -> None:
    now = [0.0]
    server = OpaServer(OpaConfig(url="http://127.0.0.1:9"), clock=lambda: now[0])
    stack.callback(server.close)
    pauses = []
    for _ in range(9):
        due = server._due
        server._down("x")
        pauses.append(server._due - now[0])
        assert due >= 0
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    server._up, server._since, now[0] = True, 0.0, 59.0
    server._down("x")
    assert server._due - now[0] == 30
    server._up, server._since, now[0] = True, 0.0, 61.0
    server._down("x")
    assert server._due - now[0] == 0.5


def test_a_stopped_or_killed_worker_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url, timeout_ms=100)
    for number, why in ((signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGSTOP, "hangs")):
        setting.until_opa()
        before = setting.server.worker
        assert before is not None
        assert Path(f"/proc/{before}/comm").read_text() == "krie-opa\n"
        os.kill(before, number)
        started = time.monotonic()
        assert setting.decided(event(1)) == "embedded"
        assert time.monotonic() - started < 0.1 + SLACK_S
        assert why in setting.changes()[-1].reason
        setting.until_opa()
        assert setting.decided(event(1)) == "opa"
        assert setting.server.worker != before


def test_nobody_waits_for_a_process_that_forks_slowly(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one in a frozen cgroup, of which nothing tells that it is stopped."""
    monkeypatch.setattr(fork_server, "_ANSWERS_WITHIN_S", 2 * PATIENCE_S)
    monkeypatch.setattr(Child, "stopped", False)
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    slow = setting.server._forks.tgid
    os.kill(slow, signal.SIGSTOP)
    started = time.monotonic()
    for number in range(20):
        assert setting.decided(event(number)) == "embedded"
    assert setting.server.worker is None
    os.kill(slow, signal.SIGCONT)
    setting.until_opa()
    assert time.monotonic() - started < PATIENCE_S
    assert setting.changes() == [Change("opa", "")]  # it was late, and never wrong
    assert setting.server._forks.tgid == slow


def test_a_process_that_forks_nothing_is_replaced(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Child, "stopped", False)
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    hangs = setting.server._forks.tgid
    os.kill(hangs, signal.SIGSTOP)
    monkeypatch.setattr(fork_server, "_ANSWERS_WITHIN_S", 0.0)
    setting.server.look(setting.revision)
    assert setting.server._forks.tgid != hangs
    monkeypatch.undo()
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"


def test_another_revision_is_refused_until_both_have_the_same(tmp_path: Path, stack: ExitStack) -> None:
    first, second = sources(tmp_path / "rules", 5), sources(tmp_path / "rules", 0)
    opa = stack.enter_context(running(tmp_path, first))
    setting = Setting(first, stack, url=opa.url)
    setting.until_opa()
    opa.serve(second)
    end = time.monotonic() + PATIENCE_S
    while setting.decided(event(1)) == "opa":
        assert time.monotonic() < end
    reason = f"it decides by revision {second.revision}, and revision {first.revision} is in force here"
    assert setting.changes()[-1] == Change("embedded", reason)
    setting.use(second)
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"


def test_the_revision_changes_under_load(tmp_path: Path, stack: ExitStack) -> None:
    """Each answer is by the revision that is in force here, or the embedded engine's."""
    found = [sources(tmp_path / "rules", limit) for limit in (0, 100)]
    opa = stack.enter_context(running(tmp_path, found[0]))
    setting = Setting(found[0], stack, url=opa.url, batch=16)
    setting.until_opa()
    events = [event(number) for number in range(0, 200, 13)]
    end = time.monotonic() + PATIENCE_S
    for number in range(1, 13):
        opa.serve(found[number % 2])  # which it takes at some moment of what follows
        while setting.decided(*events) != ("embedded" if number % 2 else "opa"):
            assert time.monotonic() < end, setting.server.to_json()
            setting.server._pause_s, setting.server._due = 0.01, 0.0  # as a reload does


def test_without_krie_s_bundle_it_is_of_no_use(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, PolicySources((), {"a": 1}, "")))
    setting = Setting(found, stack, url=opa.url)
    while not setting.server.changes:
        setting.server.look(setting.revision)
        time.sleep(0.005)
    (change,) = setting.changes()
    assert "it decides by revision " in change.reason or "it answered about other packages" in change.reason


def test_an_error_in_a_rule_is_the_embedded_engine_s_to_report(tmp_path: Path, stack: ExitStack) -> None:
    """OPA would take a wrong argument for a rule that does not fire; the agent says that it could not be evaluated."""
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    setting.until_opa()
    assert setting.decided(event(1, "no number"), event(2)) == "embedded"
    assert setting.decided(event(1)) == "opa"
    assert setting.server.declined == 1
    assert setting.changes() == [Change("opa", "")]
    for _ in range(16):
        assert setting.decided(event(1, "no number")) == "embedded"
    (change,) = setting.changes()
    assert "eval_builtin_error" in change.reason


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


def found_out(setting: Setting) -> Change:
    """What the first look at a server says."""
    until_told(setting)
    (change,) = setting.changes()
    return change


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


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
        ({"url": opa.url, "ca": ""}, "HTTP status 400"),
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


def piecewise(body: bytes, pause_s: float) -> Iterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]
        time.sleep(pause_s)


def changed(**parts: Any) -> Reply:
    """An honest answer with something else in it."""

    def reply(body: dict[str, Any]) -> Any:
        answer = honest(REVISION)(body)
        return {**answer, **{name: part(answer[name]) for name, part in parts.items()}}

    return reply


def first(**parts: Any) -> Reply:
    return changed(result=lambda result: [{**result[0], **parts}, *result[1:]])


def fires(*rules: object) -> Reply:
    return honest(REVISION, lambda package, _: list(rules) if package == "data.krie.site" else [])


def raw(body: bytes, *headers: str, status: str = "200 OK") -> Reply:
    return lambda _: response(body, status, *headers)


REVISION = "the revision"
DEEP = b'{"result": ' + b"[" * 100_000
BOMB = gzip.compress(bytes(400 << 20), 1)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
KILL = {"id": "SITE1", "action": "kill", "scope": "process", "ttl_s": 60}


def until_told(setting: Setting) -> None:
    """Until the server is found to be of no use."""
    end = time.monotonic() + PATIENCE_S
    while not setting.server.changes:
        setting.server.look(setting.revision)
        assert time.monotonic() < end
        time.sleep(0.005)


def test_no_redirect_leads_elsewhere_and_no_proxy_of_the_environment(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(sources(tmp_path / "rules"), revision=REVISION)
    other = Hostile(honest(REVISION), stack)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    server = Hostile(raw(b"{}", f"Location: {other.url}/v1/data", status="307 Temporary Redirect"), stack)
    secret(tmp_path / "token", "secret")
    setting = Setting(found, stack, url=server.url, token=str(tmp_path / "token"))
    until_told(setting)
    assert setting.server.engine == "embedded"
    assert other.requests == []
    assert b"Authorization: Bearer secret" in server.requests[0]


def test_a_server_s_cookies_are_not_kept(tmp_path: Path, stack: ExitStack) -> None:
    """They would grow with each answer, and all of them would be sent with each query."""
    found = replace(sources(tmp_path / "rules"), revision=REVISION)
    server = Hostile(honest(REVISION), stack)
    setting = Setting(found, stack, url=server.url)
    answers = honest(REVISION)
    server.reply = lambda body: response(json.dumps(answers(body)).encode(), "200 OK", "Set-Cookie: a=b; Path=/")
    setting.until_opa()
    assert [setting.policy.decide(*event(number)).engine for number in (1, 2)] == ["opa", "opa"]
    assert len(server.requests) == 3
    assert not [each for each in server.requests if b"cookie" in each.lower()]


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


def test_a_rule_that_a_server_claims_is_taken_where_it_is_declared(tmp_path: Path, stack: ExitStack) -> None:
    """What a server that lies within these bounds can do: it may leave rules out, or let declared ones fire."""
    found = replace(sources(tmp_path / "rules"), revision=REVISION)
    server = Hostile(fires(KILL), stack)
    setting = Setting(found, stack, url=server.url)
    setting.until_opa()
    assert [each.id for each in setting.policy.decide(*event(99)).rules] == ["SITE1"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Setting, Hostile]]:
    with ExitStack() as made:
        found = replace(sources(tmp_path_factory.mktemp("hostile")), revision=REVISION)
        server = Hostile(honest(REVISION), made)
        yield Setting(found, made, url=server.url, timeout_ms=400), server


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda _: None, "RemoteDisconnected|closed|reset"),
        (raw(b""), "JSON|Expecting value"),
        (raw(b"<html>"), "Expecting value"),
        (raw(b"{}"), "it has no document krie.decision.batch"),
        (raw(b"[]"), "it has no document"),
        (raw(b"null"), "it has no document"),
        (raw(b'{"result": null}'), "it answered none of 2 questions"),
        (raw(b'{"result": {}}'), "it answered none of 2 questions"),
        (raw(b'{"result": []}'), "it answered 0 of 2 questions"),
        (raw(b'{"result": [NaN, NaN]}'), "wrong shape at result.0"),
        (raw(b'{"result": [1e999, 2]}'), "wrong shape at result.0"),
        (raw(b'{"result": [' + b"1" * 5000 + b", 2]}"), "4300|wrong shape"),
        (raw(DEEP), "recursion|JSON|Expecting"),
        (raw(b"x" * (5 << 20)), "larger than 4 MiB"),
        (lambda _: [b"HTTP/1.1 200 OK\r\n\r\n", *([b"x" * (1 << 20)] * 8)], "larger than 4 MiB"),
        (lambda _: CHUNKED + b"100000\r\n" + b"x" * (1 << 20)
         + b"\r\nffffffffffffffff\r\n" + b"y" * (8 << 20), "larger than 4 MiB|no answer|Incomplete"),
        (lambda _: CHUNKED + b"-1\r\n" + b"y" * (8 << 20), "larger than 4 MiB"),
        (lambda body: CHUNKED + b"-1\r\n" + json.dumps(honest(REVISION)(body)).encode(), "it gave no answer"),
        (lambda _: CHUNKED + b"xyz\r\n", "IncompleteRead"),
        (lambda _: b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n", "headers"),
        (lambda _: b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000, "header|line|no answer"),
        (lambda _: b"SSH-2.0-OpenSSH\r\n", "SSH|BadStatusLine|no answer"),
        (lambda body: piecewise(response(json.dumps(honest(REVISION)(body)).encode()), 0.02), "it gave no answer"),
        (raw(b"{}", "Location: http://127.0.0.1:1/", status="302 Found"), "HTTP status 302"),
        (raw(b"{}", "Location: http://127.0.0.1:1/", status="307 Temporary Redirect"), "HTTP status 307"),
        (raw(BOMB, "Location: http://127.0.0.1:1/", "Content-Encoding: gzip", status="302 Found"), "it packs its"),
        (raw(b"x" * (5 << 20), "Location: http://127.0.0.1:1/", status="302 Found"), "larger than 4 MiB"),
        (raw(b'{"code": "x"}', status="503 Busy"), "HTTP status 503"),
        (raw(b"{}", status="204 Nothing"), "HTTP status 204"),
        (raw(b"\x1f\x8b", "Content-Encoding: gzip"), "it packs its answers"),
        (changed(result=lambda result: result[:1]), "it answered 1 of 2 questions"),
        (changed(result=lambda result: [*result, result[0]]), "it answered 3 of 2 questions"),
        (changed(result=lambda result: result[::-1]), "not answer the questions in their order"),
        (changed(result=lambda result: [result[0], result[0]]), "not answer the questions in their order"),
        (changed(result=lambda result: [None, *result[1:]]), "wrong shape at result.0"),
        (first(n="0"), "wrong shape at result.0.n"),
        (first(n=0.0), "wrong shape at result.0.n"),
        (first(more=1), "wrong shape at result.0.more"),
        (first(fired={}), "about other packages"),
        (first(fired=[]), "wrong shape at result.0.fired"),
        (first(fired={"data.krie.site": [], "data.krie.other": [], "data.krie.x": []}), "about other packages"),
        (first(fired={"data.krie.site": {"id": "SITE1"}, "data.krie.other": []}), "wrong shape"),
        (changed(provenance=lambda _: {}), "it decides by revision none"),
        (changed(provenance=lambda _: {"bundles": {"x": {"revision": "other"}}}), "it decides by revision other"),
        (
            changed(provenance=lambda _: {"bundles": {str(n): {"revision": "x" * 99} for n in range(900)}}),
            "by revision xxx",
        ),
        (changed(provenance=lambda _: {"bundles": []}), "wrong shape at provenance.bundles"),
        (changed(provenance=lambda _: None), "wrong shape at provenance"),
        (fires({**KILL, "id": "EVIL"}), "no rule of data.krie.site declares EVIL"),
        (fires({**KILL, "scope": "host"}), "no rule of data.krie.site declares SITE1"),
        (fires({**KILL, "ttl_s": 86400}), "no rule of data.krie.site declares SITE1"),
        (fires({**KILL, "id": "OTHER", "action": "log"}), "no rule of data.krie.site declares OTHER"),
        (fires({"id": "SITE2", "action": "override", "errno": 14}), "no rule of data.krie.site declares SITE2"),
        (fires(KILL, KILL), "is in it twice"),
        (fires({"id": "SITE1", "action": "explode"}), "a rule's action is wrong"),
        (fires({"id": "SITE1"}), "a rule's action is wrong"),
        (fires({**KILL, "ttl_s": float("nan")}), "wrong shape"),
        (fires({**KILL, "ttl_s": None}), "wrong shape"),
        (fires({**KILL, "more": "x" * 1000}), "a rule's more is wrong"),
        (fires(*([KILL] * 1001)), "wrong shape"),
        (fires([]), "wrong shape"),
        (fires("SITE1"), "wrong shape"),
    ],
)  # fmt: skip
def test_a_hostile_answer_is_not_believed(hostile: tuple[Setting, Hostile], reply: Reply, reason: str) -> None:
    setting, server = hostile
    server.reply = honest(REVISION)
    setting.server._pause_s, setting.server._due = 0.001, 0.0
    setting.until_opa()
    setting.changes()
    worker = setting.server.worker
    server.reply = reply
    started = time.monotonic()
    assert setting.decided(event(1), event(9)) == "embedded"
    assert time.monotonic() - started < 0.4 + SLACK_S
    (change,) = setting.changes()
    assert re.search(reason, change.reason), change.reason
    assert len(change.reason) < 400
    server.reply = honest(REVISION)
    setting.until_opa()
    assert setting.server.worker == worker  # it survives
