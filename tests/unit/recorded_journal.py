"""Journals made by the real bus and engine, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from krie import Event
from krie.agent.bus import Bus
from krie.agent.selection import Selection
from krie.config import PolicyConfig
from krie.decision import Action, Mode
from krie.enforce.enforcer import Effect, would
from krie.events.agent import AGENT_EVENTS
from krie.events.event import EventTypes
from krie.events.given import Told
from krie.events.identity import Identity
from krie.events.wire import Json
from krie.kernel.cgroups import Cgroups
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicyFile, PolicySources, revision_of
from krie.processes.enrich import Enricher, document_schema
from krie.processes.process import NOTHING
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.processes.table import ProcessTable
from krie.review.compared import Tally
from krie.review.journal_reader import JournalReader
from krie.review.replay_pool import Pool
from krie.testing.events import build, encode

TYPES = EventTypes((*AGENT_EVENTS, Ptrace, SysctlWrite, ProcessExec, ProcessExit, ProcessFork))
SCHEMAS: dict[str, Json] = {each.name: document_schema(each, {}) for each in TYPES}
SYSCTL = "runtime_integrity.sysctl_write"


def sources(rules: str, place: str = "p.rego") -> PolicySources:
    text = f"package krie.site\n\n{rules}\n"
    return PolicySources((PolicyFile(place, text),), {}, revision_of([text], {}))


def rule(name: str, action: str, *conditions: str) -> str:
    body = "".join(f"\t{each}\n" for each in conditions)
    return f'rules contains {{"id": "{name}", "action": "{action}"}} if {{\n{body}}}\n'


class Recorder:
    """An agent's part from bytes to lines."""

    def __init__(self, policy: PolicySources) -> None:
        self.lines: list[str] = []
        self.table = ProcessTable(1000, lambda _: NOTHING)
        self.enricher = Enricher(TYPES, self.table, Cgroups(None), {})
        judge = Policy(EmbeddedEngine(policy), on_error=Action.LOG, memo=100)
        self.bus = Bus(
            TYPES,
            self.table,
            self.enricher,
            judge,
            [lambda line: self.lines.append(line) or True],  # type: ignore[func-returns-value]
            [],
            lambda event, decision: Effect(Mode.OBSERVE, would=would(decision)),
            Selection(Action.ALLOW, []),
        )
        self.bus.host = {"name": "here", "release": "6", "machine": "m"}
        self.bus.health = {"lost": 0}

    def take(self, event: Event) -> None:
        self.bus.take(encode(event))

    def sysctl(self, name: str, **fields: Any) -> None:
        self.take(build(SysctlWrite, name=name, **fields))

    def text(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode("utf-8", "backslashreplace")

    def write(self, path: Path) -> Path:
        path.write_bytes(self.text())
        return path

    def forget(self) -> None:
        """The next line tells all values, as the first one of a file may not."""
        self.bus._told = Told()


def named(recorder: Recorder, name: str) -> Identity:
    found = Identity(8, 9, 0)
    recorder.enricher.programs = {found: name}
    return found


def replayed(
    old: PolicySources,
    new: PolicySources,
    files: Iterable[Path],
    *,
    jobs: int = 1,
    limits: PolicyConfig | None = None,
    while_running: Callable[[Pool], object] = id,
) -> Tally:
    """By processes, as the command does."""
    reader = JournalReader(list(files))
    pool = Pool(old, new, limits or PolicyConfig(), SCHEMAS, jobs)
    pool.start()
    try:
        while_running(pool)
        return pool.run(reader.pieces(), lambda file, line: f"{reader.paths[file].name}:{line}")
    finally:
        pool.close()
        reader.close()
