"""Servers that answer anything instead of a decision, or want to lead elsewhere: nothing of it is believed."""

import gzip
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..opa_servers import Hostile, Reply, honest, response
from .delegated import PATIENT_MS, SLACK_S, Setting, event, secret, sources, until_told


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


def test_a_rule_that_a_server_claims_is_taken_where_it_is_declared(tmp_path: Path, stack: ExitStack) -> None:
    """What a server that lies within these bounds can do: it may leave rules out, or let declared ones fire."""
    found = replace(sources(tmp_path / "rules"), revision=REVISION)
    server = Hostile(fires(KILL), stack)
    setting = Setting(found, stack, url=server.url)
    setting.until_opa()
    assert [each.id for each in setting.policy.decide(*event(99)).rules] == ["SITE1"]


HASTY_MS = 400


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, tuple[Setting, Hostile]]]:
    """One that is waited for patiently, and one for whose answers nobody waits long, by that time."""
    with ExitStack() as made:
        found = replace(sources(tmp_path_factory.mktemp("hostile")), revision=REVISION)
        servers = {each: Hostile(honest(REVISION), made) for each in (PATIENT_MS, HASTY_MS)}
        yield {
            each: (Setting(found, made, url=server.url, timeout_ms=each), server) for each, server in servers.items()
        }


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
def test_a_hostile_answer_is_not_believed(
    hostile: dict[int, tuple[Setting, Hostile]], monkeypatch: pytest.MonkeyPatch, reply: Reply, reason: str
) -> None:
    # Who asks says itself when the time is over, however late that comes on a busy machine.
    monkeypatch.setattr("krie.opa.server._MOMENT_S", SLACK_S)
    timeout_ms = HASTY_MS if "no answer" in reason else PATIENT_MS
    setting, server = hostile[timeout_ms]
    server.reply = honest(REVISION)
    setting.server._pause_s, setting.server._due = 0.001, 0.0
    setting.until_opa()
    setting.changes()
    worker = setting.server.worker
    server.reply = reply
    started = time.monotonic()
    assert setting.decided(event(1), event(9)) == "embedded"
    assert time.monotonic() - started < timeout_ms / 1000 + SLACK_S
    (change,) = setting.changes()
    assert re.search(reason, change.reason), change.reason
    assert len(change.reason) < 400
    server.reply = honest(REVISION)
    setting.until_opa()
    assert setting.server.worker == worker  # it survives
