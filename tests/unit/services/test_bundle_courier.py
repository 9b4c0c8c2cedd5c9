"""The process that fetches bundles: ended, stopped, held up or asked who it is."""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from krie.testing.patience import PATIENCE_S

from ...policy.bundles import signed
from ..web import certificate, reply, server_tls, serving
from .bundle_site import Site, decided_by, revision, ruled, told, until, wait


def test_the_courier_is_replaced_when_somebody_ends_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.services.desk.backoff_s", lambda *_: 0.0)
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        assert agent._desk._courier is not None
        first = agent._desk._courier.tgid
        os.kill(first, signal.SIGKILL)
        until(agent, lambda: agent._desk._courier is not None and agent._desk._courier.tgid != first)
        site.shelf.put(signed(ruled("B2", 2)).to_bytes())
        agent._desk.try_again()
        until(agent, revision(agent, "B2"))
        (ended, *_) = told(setting, agent, "krie.service")
        assert ended["service"] == "courier"
        assert "SIGKILL" in ended["reason"]


def test_the_end_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    site, end = Site(tmp_path), threading.Event()
    with serving(lambda _: end.wait(PATIENCE_S)) as server:
        site.url = server.url
        with site.agent() as (_, agent):
            until(agent, lambda: bool(server.requests))
            started = time.monotonic()
            agent.finish()
            agent._desk.close()
            assert time.monotonic() - started < PATIENCE_S / 2
        end.set()


def test_a_courier_that_somebody_stopped_holds_nothing_up(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        assert agent._desk._courier is not None
        os.kill(agent._desk._courier.tgid, signal.SIGSTOP)
        started = time.monotonic()
        agent._desk.try_again()
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
        assert decided_by(setting, agent) == ["B1"]
        agent.finish()
        agent._desk.close()
        assert time.monotonic() - started < PATIENCE_S / 2


def test_a_poll_that_is_held_open_by_a_server_that_wants_to_know_who_asks(tmp_path: Path) -> None:
    """TLS by an authority of its own, the agent's certificate and its token; each of them as the configuration says."""
    site, changed = Site(tmp_path), threading.Event()
    shelf, headers = site.shelf, {"Content_Type": "application/vnd.openpolicyagent.bundles"}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") != "Bearer t0ken":
            reply(handler, 401)
            return
        if handler.headers.get("If-None-Match") == shelf.etag:
            changed.wait(PATIENCE_S)
        reply(handler, 200, shelf.raw, ETag=shelf.etag, **headers)

    shelf.put(signed(ruled("B1")).to_bytes())
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    token.chmod(0o600)
    mine, key = certificate("client", "clients").written(tmp_path, "client")
    files = {"token": str(token), "ca": certificate("ca").written(tmp_path, "ca")[0], "certificate": mine, "key": key}
    with serving(answer, server_tls(tmp_path, client_ca="clients")) as server:
        site.url = server.url
        # The next poll of a server that holds none open would come after a day.
        with site.agent(long_poll_s=30, min_delay_s=86400, max_delay_s=86400, **files) as (_, agent):
            until(agent, revision(agent, "B1"))
            wait(lambda: len(server.requests) > 1)  # it is held
            shelf.put(signed(ruled("B2", 2)).to_bytes())
            changed.set()
            until(agent, revision(agent, "B2"))
            assert [each.headers["prefer"] for each in server.requests[:2]] == ["modes=snapshot;wait=30"] * 2


@pytest.mark.parametrize(
    ("missing", "why"), [("token", "401"), ("ca", "certificate verify failed"), ("certificate", "")]
)
def test_a_server_that_wants_to_know_who_asks_tells_others_nothing(tmp_path: Path, missing: str, why: str) -> None:
    site = Site(tmp_path)
    site.shelf.put(signed(ruled("B1")).to_bytes())
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    token.chmod(0o600)
    mine, key = certificate("client", "clients").written(tmp_path, "client")
    files = {"token": str(token), "ca": certificate("ca").written(tmp_path, "ca")[0], "certificate": mine, "key": key}
    for name in (missing, *(["key"] if missing == "certificate" else [])):
        del files[name]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") == "Bearer t0ken":
            site.shelf.answer(handler)
        else:
            reply(handler, 401)

    with serving(answer, server_tls(tmp_path, client_ca="clients")) as server:
        site.url = server.url
        with site.agent(**files) as (setting, agent):
            until(agent, lambda: "bundle" in agent._desk.troubles)
            assert why in agent._desk.troubles["bundle"]
            assert bool(server.requests) == (missing == "token")
            assert decided_by(setting, agent) == ["R1"]
