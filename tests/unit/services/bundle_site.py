"""A host whose policy comes from a bundle server, and what its agent says about that."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from krie.agent.agent import Agent
from krie.config import Config
from krie.policy.bundle import Bundle
from krie.testing.patience import PATIENCE_S

from ...policy.bundles import bundle, key_pair
from ..agent.setting import Setting
from ..web import reply

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


def offer(agent: Agent, made: Bundle, serial: int) -> bytes:
    """As a courier does that was started again, and knows nothing of what the one before has offered."""
    raw = made.to_bytes()
    agent._desk.bundles._kept.offer(raw)
    digest = hashlib.sha256(raw).hexdigest()
    told = {"service": "bundle", "state": "offered", "digest": digest, "revision": made.revision, "serial": serial}
    agent._desk._take({**told, "executables": {}})
    return raw
