"""An agent whose policy comes as a bundle, from a real web server and from a file."""

import gzip
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from krie.agent.agent import Agent
from krie.config import Config
from krie.errors import PolicyError
from krie.policy.archive import pack
from krie.policy.bundle import Bundle
from krie.testing.patience import PATIENCE_S

from ...policy.bundles import bundle, key_pair, signed
from ..agent.setting import Setting, all_logs, signals_as_before  # noqa: F401 - fixtures
from ..web import certificate, reply, server_tls, serving

RULE = """package krie.site

rules contains {"id": "%s", "action": "log"} if input.event.kind == "sample.seen"
"""


def ruled(name: str, serial: int | None = 1, **data: object) -> Bundle:
    return bundle(RULE % name, serial=serial, revision=f"rev-{name}", **data)


class Shelf:
    """A bundle server as OPA's protocol has it, with one bundle."""

    def __init__(self) -> None:
        self.raw, self.etag, self.unchanged = b"", "", 0
        self.headers = {"Content_Type": "application/gzip"}

    def put(self, raw: bytes, tag: str = '"%d"') -> None:
        self.raw, self.etag = raw, tag % hash(raw)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if not self.raw:
            reply(handler, 404, b"no such bundle\n")
        elif handler.headers.get("If-None-Match") == self.etag:
            self.unchanged += 1
            reply(handler, 304, ETag=self.etag)
        else:
            reply(handler, 200, self.raw, ETag=self.etag, **self.headers)


class Site:
    """A host whose policy comes from a server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shelf = folder, Shelf()
        self.key = folder / "ci.pem"
        self.key.write_bytes(key_pair("ES256")[1])
        self.url = ""
        self._count = 0

    @contextmanager
    def agent(self, source: str = "", **sections: object) -> Iterator[tuple[Setting, Agent]]:
        """One from its start to its end; the next one finds what this one kept."""
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        setting = Setting(folder)
        content = setting.config.model_dump()
        content["agent"]["state_dir"] = str(self.folder / "state")
        content["policy"]["bundle"] = source or f"{self.url}/krie.tar.gz"
        content["bundle"] = {"keys": {"ci": {"file": str(self.key), "algorithm": "ES256"}}, **sections}
        setting.config = Config.model_validate(content)
        with setting.stack:
            yield setting, setting.start()

    @property
    def kept(self) -> Path:
        return self.folder / "state/bundle"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with serving(made.shelf.answer) as server:
        made.url = server.url
        yield made


def until(agent: Agent, happens: Callable[[], bool]) -> None:
    """Let it run until then."""
    beat, end = agent._desk.hear, time.monotonic() + PATIENCE_S

    def hear() -> None:
        beat()
        agent._news.tell_services()
        if happens() or time.monotonic() > end:
            agent._signals.stop("as far as the test wants it")

    agent._signals.stop_reason = ""
    agent._desk.hear = hear  # type: ignore[method-assign]
    try:
        agent.run(PATIENCE_S)
    finally:
        agent._desk.hear = beat  # type: ignore[method-assign]
    assert happens()


def wait(happens: Callable[[], bool]) -> None:
    """For another process."""
    end = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.005)


def decided_by(setting: Setting, agent: Agent) -> list[str]:
    """What decides an event now."""
    found: list[str] = []
    sink = agent._bus._sinks
    agent._bus._sinks = (lambda line: not found.insert(0, line),)  # type: ignore[func-returns-value]
    setting.happens()
    agent._inbox.drain()
    agent._bus._sinks = sink
    return [each["id"] for line in found for each in json.loads(line)["decision"]["rules"]]


def told(setting: Setting, agent: Agent, kind: str) -> list[dict[str, Any]]:
    return [each["event"] for each in setting.journal(agent) if each["kind"] == kind]


def revision(agent: Agent, name: str) -> Callable[[], bool]:
    return lambda: agent._in_force.policy.revision.startswith(f"rev-{name}")


def test_a_kept_bundle_that_is_refused_at_start_stays_told(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        wait((site.kept / "state.json").exists)
    site.key.write_bytes(key_pair("ES256", 1)[1])  # the old one is trusted no more
    with site.agent() as (setting, agent):
        assert "not by the pinned key" in agent._desk.troubles["bundle"]
        assert "the kept bundle" in agent._desk.troubles["bundle"]
        until(agent, lambda: "the kept bundle" not in agent._desk.troubles.get("bundle", ""))
        assert site.url in agent._desk.troubles["bundle"]  # the server's was examined, and is no better
        assert decided_by(setting, agent) == ["R1"]


def test_an_older_bundle_is_refused_though_the_host_died_before_it_noted_the_newer(site: Site) -> None:
    site.shelf.put(signed(ruled("B1", serial=1)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        wait((site.kept / "state.json").exists)
    noted = (site.kept / "state.json").read_bytes()
    site.shelf.put(signed(ruled("B5", serial=5)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B5"))
        wait(lambda: b'"highest": 5' in (site.kept / "state.json").read_bytes())
    (site.kept / "state.json").write_bytes(noted)
    site.shelf.put(signed(ruled("B3", serial=3)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, lambda: "serial" in agent._desk.troubles.get("bundle", ""))
        assert revision(agent, "B5")()


def test_a_bundle_comes_into_force_and_starts_the_next_agent_without_a_network(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["R1"]  # the folders' until there is a bundle
        until(agent, revision(agent, "B1"))
        assert decided_by(setting, agent) == ["B1"]
        wait((site.kept / "state.json").exists)
        (loaded,) = told(setting, agent, "krie.policy")
        assert (loaded["state"], loaded["revision"][:6], loaded["rules"]) == ("loaded", "rev-B1", 1)
    assert (site.kept / "active.tar.gz").read_bytes() == site.shelf.raw
    assert sorted(each.name for each in site.kept.iterdir()) == ["active.tar.gz", "state.json"]
    site.url = "http://127.0.0.1:9"  # nobody is there
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["B1"]
        until(agent, lambda: bool(agent._desk.troubles))
        agent._health.update()
        assert agent._bus.health["services"] == ["bundle"]
        (trouble,) = told(setting, agent, "krie.service")
        assert (trouble["service"], trouble["state"]) == ("bundle", "trouble")
        assert "Connection refused" in trouble["reason"]


def refused(site: Site, raw: bytes, why: str) -> None:
    """By an agent whose policy before stays in force, and which says so."""
    site.shelf.put(raw)
    with site.agent() as (setting, agent):
        before = agent._in_force.policy.revision
        until(agent, lambda: "bundle" in agent._desk.troubles)
        until(agent, lambda: not agent._policy_files.loading)
        agent._news.tell()
        assert agent._in_force.policy.revision == before
        agent._health.update()
        assert agent._bus.health["services"] == ["bundle"]
        assert why in str(agent._status.to_json()["services"])
        events = [*told(setting, agent, "krie.policy"), *told(setting, agent, "krie.service")]
        assert why in [each["reason"] for each in events if each["state"] in ("refused", "trouble")][-1]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (lambda: ruled("B1").to_bytes(), "is not signed"),
        (lambda: signed(ruled("B1"), number=1).to_bytes(), "the signature is not by the pinned key"),
        (lambda: signed(ruled("B1"), "RS256").to_bytes(), "is not by ES256"),
        (lambda: signed(ruled("B1")).to_bytes()[:-20], "is cut off"),
        (lambda: b"nonsense", "is no bundle"),
        (lambda: signed(bundle("package krie.site\n\nrules contains", revision="b")).to_bytes(), "site.rego:3"),
        (lambda: signed(ruled("B1", executables=["x"])).to_bytes(), "data.executables"),
        (lambda: bytes(17 << 20), "16777216 are the most"),
        # A reason that quotes all of it would be a line for which the agent ends the courier.
        (lambda: pack({"x.rego": b"package " + b"x" * (5 << 20), ".manifest": b'{"roots": []}'}), "package xxx"),
    ],
)
def test_what_is_refused(site: Site, raw: Callable[[], bytes], why: str) -> None:
    refused(site, raw(), why)
    assert not (site.kept / "active.tar.gz").exists()
    assert not (site.kept / "offered.tar.gz").exists() or "site.rego" in why


def test_rules_of_a_fetched_bundle_are_told_by_its_url(site: Site) -> None:
    """The file that it was fetched into is gone once it is in force."""
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        assert [each.place for each in agent._in_force.policy.rules] == [f"{site.url}/krie.tar.gz/site/site.rego:3"]
    wrong = signed(bundle("package krie.site\n\nrules contains", revision="b")).to_bytes()
    refused(site, wrong, f"{site.url}/krie.tar.gz/site/site.rego:3")


def test_nothing_older_follows_unless_it_is_let_in(site: Site) -> None:
    site.shelf.put(signed(ruled("B5", 5)).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B5"))
        wait((site.kept / "state.json").exists)
    refused(site, signed(ruled("B4", 4)).to_bytes(), "is older than what was in force here: its serial is 4")
    refused(site, signed(ruled("B0", None)).to_bytes(), "has no serial")
    site.shelf.put(signed(ruled("B4", 4)).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, lambda: "bundle" in agent._desk.troubles)
        (site.kept / "state.json").unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        until(agent, revision(agent, "B4"))
        until(agent, lambda: "bundle" not in agent._desk.troubles)
        assert decided_by(setting, agent) == ["B4"]


def test_a_refused_bundle_leaves_the_one_before_over_a_restart(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
    refused(site, ruled("B2", 2).to_bytes(), "is not signed")
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["B1"]


def test_a_kept_bundle_that_somebody_changed_is_verified_again(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
    (site.kept / "active.tar.gz").write_bytes(ruled("EVIL").to_bytes())
    site.url = "http://127.0.0.1:9"
    with site.agent() as (setting, agent):
        assert decided_by(setting, agent) == ["R1"]
        (said,) = [each for each in told(setting, agent, "krie.policy") if each["state"] == "refused"]
        assert "the kept bundle" in said["reason"]
        assert "is not signed" in said["reason"]


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
            assert time.monotonic() - started < PATIENCE_S / 10
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
        assert time.monotonic() - started < PATIENCE_S / 10


@pytest.mark.parametrize("tag", ['"6b0bae8e-%d"', 'W/"6b0bae8e-%d"'])
def test_any_web_server_for_files_will_do(site: Site, tag: str) -> None:
    """As nginx 1.22 answers: a weak tag where it packs what it sends, and the type of the name's end."""
    site.shelf.headers = {
        "Content_Type": "text/plain",
        "Last_Modified": "Sun, 29 Nov 2026 04:48:14 GMT",
        "Accept_Ranges": "bytes",
        "Server": "nginx/1.22.1",
    }
    site.shelf.put(signed(ruled("B1")).to_bytes(), tag)
    with site.agent(min_delay_s=1, max_delay_s=1) as (setting, agent):
        until(agent, revision(agent, "B1"))
        until(agent, lambda: site.shelf.unchanged > 0)
        site.shelf.put(signed(ruled("B2", 2)).to_bytes(), tag)
        until(agent, revision(agent, "B2"))
        assert decided_by(setting, agent) == ["B2"]


def test_a_server_that_packs_its_bundle_for_each_answer_forces_no_reload(site: Site) -> None:
    raw = signed(ruled("B1")).to_bytes()
    site.shelf.put(raw)
    with site.agent(min_delay_s=1, max_delay_s=1) as (setting, agent):
        until(agent, revision(agent, "B1"))
        for level in (1, 2):
            site.shelf.put(gzip.compress(gzip.decompress(raw), level, mtime=level))
            assert site.shelf.raw != raw
            before = site.shelf.unchanged
            until(agent, lambda before=before: site.shelf.unchanged > before)  # type: ignore[misc]  # it was taken
        site.shelf.put(signed(ruled("B2", 2)).to_bytes())
        until(agent, revision(agent, "B2"))
        loaded = [each["revision"][:6] for each in told(setting, agent, "krie.policy")]
        assert loaded == ["rev-B1", "rev-B2"]


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


def test_an_offer_that_comes_amid_another_load_is_not_in_force_by_that(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        desk, before = agent._desk, agent._desk.bundles._active
        agent._reload.begin()  # of B1
        offer = {"service": "bundle", "state": "offered", "digest": "d", "revision": "B2", "serial": 2}
        desk._take({**offer, "executables": {}})
        agent._reload.finish(PATIENCE_S)
        assert desk.bundles._active == before
        assert desk.bundles._offers.waiting is not None
        assert desk.bundles.take_offer()


def offer(agent: Agent, made: Bundle, serial: int) -> bytes:
    """As a courier does that was started anew, and knows nothing of what the one before has offered."""
    raw = made.to_bytes()
    agent._desk.bundles._kept.offer(raw)
    digest = hashlib.sha256(raw).hexdigest()
    told = {"service": "bundle", "state": "offered", "digest": digest, "revision": made.revision, "serial": serial}
    agent._desk._take({**told, "executables": {}})
    return raw


def test_an_offer_that_is_overtaken_while_it_is_tried_is_kept_under_its_own_name(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, revision(agent, "B1"))
        desk = agent._desk
        first = offer(agent, signed(ruled("B2", 2)), 2)
        assert desk.bundles.take_offer()
        agent._reload.begin()
        assert agent._policy_files.loading
        second = offer(agent, signed(ruled("B3", 3)), 3)
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B2")()
        assert decided_by(setting, agent) == ["B2"]
        assert (site.kept / "active.tar.gz").read_bytes() == first
        assert desk.bundles.take_offer()  # which is not forgotten
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B3")()
        assert (site.kept / "active.tar.gz").read_bytes() == second
        assert not list(site.kept.glob("offered*"))


def test_an_offer_that_comes_twice_is_tried_once(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        desk, made = agent._desk, signed(ruled("B2", 2))
        offer(agent, made, 2)
        assert desk.bundles.take_offer()
        agent._reload.begin()
        offer(agent, made, 2)
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B2")()
        assert not desk.bundles.take_offer()
        assert desk.troubles == {}


def test_nothing_older_comes_into_force_by_overtaking(site: Site) -> None:
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (_, agent):
        until(agent, revision(agent, "B1"))
        offer(agent, signed(ruled("B5", 5)), 5)
        assert agent._desk.bundles.take_offer()
        agent._reload.begin()
        offer(agent, signed(ruled("B4", 4)), 4)  # by a courier that knows of B1 only
        agent._reload.finish(PATIENCE_S)
        assert revision(agent, "B5")()
        assert not agent._desk.bundles.take_offer()
        assert "older" in agent._desk.troubles["bundle"]
        assert not list(site.kept.glob("offered*"))


def test_what_one_offer_is_refused_for_is_not_said_of_the_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A courier ends while the agent tries what it offered, and the next one offers what mends it."""
    monkeypatch.setattr("krie.services.desk.backoff_s", lambda *_: 0.0)
    site.shelf.put(signed(bundle("package krie.site\n\nrules contains", revision="rev-B1")).to_bytes())
    with site.agent() as (setting, agent):
        desk = agent._desk
        reload, agent._reload.finish = agent._reload.finish, lambda *_: None  # type: ignore[method-assign]
        until(agent, lambda: agent._policy_files.loading)
        assert desk._courier is not None
        os.kill(desk._courier.tgid, signal.SIGKILL)
        site.shelf.put(signed(ruled("B2", 2)).to_bytes())
        until(agent, lambda: desk.bundles._offers.waiting is not None and desk.bundles._offers.waiting.serial == 2)
        agent._reload.finish = reload  # type: ignore[method-assign]
        agent._reload.finish(PATIENCE_S)
        until(agent, revision(agent, "B2"))
        wait((site.kept / "state.json").exists)
        assert (site.kept / "active.tar.gz").read_bytes() == site.shelf.raw
        assert decided_by(setting, agent) == ["B2"]


def test_what_somebody_puts_into_the_folder_is_not_believed(site: Site) -> None:
    """Root alone can: then by mistake, such as a copied state."""
    (site.kept).mkdir(parents=True)
    (site.kept / "offered-0.tar.gz").symlink_to("/etc/shadow")
    (site.kept / "offered.new").symlink_to(site.folder / "victim")
    site.shelf.put(signed(ruled("B1")).to_bytes())
    with site.agent() as (setting, agent):
        until(agent, lambda: bool(agent._desk.troubles))
        assert "bundle" in agent._desk.troubles
        assert not (site.folder / "victim").exists()
        assert decided_by(setting, agent) == ["R1"]
        assert not (site.kept / "offered-0.tar.gz").is_symlink()
        (site.kept / "offered.new").unlink()
        agent._desk.try_again()
        until(agent, revision(agent, "B1"))


def test_names_of_executables_come_from_the_bundle_and_this_host(site: Site) -> None:
    own = str(site.key)
    site.shelf.put(signed(ruled("B1", executables={"key": own, "tool": "/nowhere"})).to_bytes())
    with site.agent() as (_, agent):
        until(
            agent, lambda: agent._in_force.policy.revision.startswith("rev-B1+")
        )  # the host's own name changed the data
        names = set(agent._enricher.programs.values())
        assert names == {"key", "tool"}  # `tool` is the host's
        assert agent._policy_files.problems == ()


def test_a_bundle_in_a_file(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = tmp_path / "krie.tar.gz"
    file.write_bytes(signed(ruled("F1")).to_bytes())
    with site.agent(str(file)) as (setting, agent):
        assert decided_by(setting, agent) == ["F1"]
        assert agent._desk._server is None  # no process for it
        (tmp_path / "new").write_bytes(ruled("F2").to_bytes())
        (tmp_path / "new").rename(file)
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        assert decided_by(setting, agent) == ["F1"]
        (tmp_path / "new").write_bytes(signed(ruled("F2")).to_bytes())
        (tmp_path / "new").rename(file)
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        assert decided_by(setting, agent) == ["F2"]
        states = [each["state"] for each in told(setting, agent, "krie.policy")]
        assert states == ["refused", "loaded"]
    file.write_bytes(b"nonsense")
    with pytest.raises(PolicyError, match=r"krie\.tar\.gz: is no bundle"), site.agent(str(file)):
        pass


def test_a_bundle_in_a_file_of_root_s_need_not_be_signed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = tmp_path / "krie.tar.gz"
    file.write_bytes(ruled("F1", None).to_bytes())
    with site.agent(str(file), keys={}) as (setting, agent):
        assert decided_by(setting, agent) == ["F1"]
    file.chmod(0o666)
    with pytest.raises(PolicyError, match="can be changed by other users"), site.agent(str(file), keys={}):
        pass
