"""A policy that an OPA server decides, beside the same one decided here."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from krie.config import OpaConfig
from krie.decision import Action
from krie.opa.server import Change, OpaServer
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicySources, read_sources
from krie.testing.patience import PATIENCE_S

from ..opa_servers import wait_until_it_decides

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
SLACK_S = 30.0
"""What a busy machine may take for anything; each wait that a test counts is less than all of them together."""
PATIENT_MS = 10_000
"""As long as an agent may wait for an answer: only one that does not come takes it."""


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
        self.server = OpaServer(OpaConfig.model_validate({"timeout_ms": PATIENT_MS, **config}), self._hold, clock)
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


def found_out(setting: Setting) -> Change:
    """What the first look at a server says."""
    until_told(setting)
    (change,) = setting.changes()
    return change


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def until_told(setting: Setting) -> None:
    """Until the server is found to be of no use."""
    end = time.monotonic() + PATIENCE_S
    while not setting.server.changes:
        setting.server.look(setting.revision)
        assert time.monotonic() < end
        time.sleep(0.005)
