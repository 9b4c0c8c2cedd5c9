"""The bus: one event from bytes to what was done about it and its journal line, on one screen.

The ring buffer is the queue; one thread takes.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..decision import Decision
from ..enforce.enforcer import Carry, Effect
from ..errors import DecodeError
from ..events.event import BY_TABLE, Event, EventTypes
from ..events.given import Told, named
from ..events.identity import Key
from ..events.wire import Json
from ..printable import json_line
from ..processes.enrich import Enricher
from ..processes.sensor import ProcessExit
from ..processes.table import ProcessTable
from .selection import Selection

JOURNAL_VERSION = 1
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


LogDecision = Callable[[str, Mapping[str, Json], Decision, Effect, str], None]


class Judge(Protocol):
    """Whoever decides: see `krie.policy`."""

    def decide(self, kind: str, document: Mapping[str, Json]) -> Decision:
        """Answer for one event."""

    def describe(self, rule: str) -> Mapping[str, Json]:
        """What its METADATA say about a rule of such a decision: severity, title and technique."""

    def decide_many(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Decision]:
        """Answer for several at once, in their order."""

    @property
    def together(self) -> int:
        """How many it is worth to ask about at once."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """An event with what was known when it was taken."""

    event: Event
    kind: str
    process: Mapping[str, Json]
    facts: dict[str, Json]
    document: Mapping[str, Json]
    given: dict[str, Json]
    """Of the document what lines name by digest."""


class Bus:
    """Takes records and the agent's own events; gives journal lines to sinks and decisions to observers."""

    def __init__(
        self,
        types: EventTypes,
        table: ProcessTable,
        enricher: Enricher,
        judge: Judge,
        sinks: Iterable[Callable[[str], bool]],
        observers: Iterable[Callable[[Event, Decision], None]],
        carry_out: Carry,
        selection: Selection,
        important: Iterable[Callable[[str], bool]] = (),
        ended: Callable[[Key], object] = lambda _process: None,
    ) -> None:
        """`sinks` answer False when they had to drop a line, and count it themselves; `important`: those that get only
        what `selection` says matters. `ended` is told of processes all of which have ended."""
        self._ended = ended
        self._selection, self._important = selection, tuple(important)
        self._carry_out = carry_out
        self._types, self._table, self._enricher = types, table, enricher
        self._sinks, self._observers = tuple(sinks), tuple(observers)
        self._table_kinds = table.kinds
        self._names = {each.kind: each.name for each in types}
        self._wall = Wall()
        self._told, self._told_important = Told(), Told()
        self._waiting: list[_Seen] = []
        self._their_processes: set[int] = set()
        self.judge = judge
        """Replaced when a policy is reloaded."""
        self.host: dict[str, Json] = {}
        """`input.host`, and the same in each line."""
        self.health: dict[str, Json] = {}
        """`input.health`; replaced when it changes."""
        self.log_decision: LogDecision | None = None
        """Gets all that a line is written of, and that line's time, where a decision log service is configured."""
        self.received: Counter[int] = Counter()
        """Valid records by kind."""
        self.undecodable = 0
        self.judged = 0

    @property
    def left_out(self) -> int:
        """Lines that matter and were left out of what is kept longer, since many like them came."""
        return self._selection.left_out

    def take(self, raw: bytes) -> None:
        """One record out of the ring."""
        try:
            event = self._types.decode(raw)
        except DecodeError:
            self.undecodable += 1
            return
        self.received[event.kind] += 1
        if event.kind in self._table_kinds:
            if event.tgid in self._their_processes:  # what it did before is carried out by what is known of it till now
                self.settle()
            self._table.feed(event)
            if isinstance(event, ProcessExit):
                self._ended(Key(event.tgid, event.start_time))
        elif self.judge.together > 1:
            self._wait_for([self._seen(event)])
            if len(self._waiting) >= self.judge.together:
                self.settle()
        else:
            self.handle(event)

    def settle(self) -> None:
        """Decide what waits to be decided together. To be called when no further record is at hand."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._their_processes.clear()
            decisions = self.judge.decide_many([(each.kind, each.document) for each in waiting])
            decided = deque(zip(waiting, decisions, strict=True))
            try:
                while decided:
                    self._carried_out(*decided.popleft())
            finally:  # what fails costs no other event its decision
                self._wait_for(each for each, _ in decided)

    def _wait_for(self, seen: Iterable[_Seen]) -> None:
        for each in seen:
            self._waiting.append(each)
            self._their_processes.add(each.event.tgid)

    def handle(self, event: Event) -> None:
        """One event: enrich, decide, carry out, journal, observe."""
        self.settle()
        seen = self._seen(event)
        self._carried_out(seen, self.judge.decide(seen.kind, seen.document))

    def _seen(self, event: Event) -> _Seen:
        facts = self._enricher.event(event)
        process = self._enricher.process(event)
        given: dict[str, Json] = {"health": self.health, "ancestors": self._enricher.ancestors(event)}
        document: dict[str, Json] = {
            "event": facts,
            "process": {**process, "ancestors": given["ancestors"]},
            "host": self.host,
            "health": given["health"],
        }
        return _Seen(event, self._names[event.kind], process, facts, document, given)

    def _carried_out(self, seen: _Seen, decision: Decision) -> None:
        event = seen.event
        if event.decided_by == BY_TABLE:
            decision = decision._replace(tier="kernel")
        effect = self._carry_out(event, decision)
        self.judged += 1
        if self._selection.wanted(event, decision, effect):
            if self.log_decision is not None:
                self.log_decision(seen.kind, seen.document, decision, effect, self._wall.rfc3339(event.time))
            digests = named(seen.given)
            line = self._line(event, seen.kind, seen.process, seen.facts, digests, decision, effect)
            _write(line, digests, self._told, self._sinks)
            if self._important and self._selection.matters(event, decision, effect):
                _write(line, digests, self._told_important, self._important)
        for observe in self._observers:
            observe(event, decision)

    def _line(
        self,
        event: Event,
        kind: str,
        process: Mapping[str, Json],
        facts: dict[str, Json],
        digests: Mapping[str, tuple[str, str]],
        decision: Decision,
        effect: Effect,
    ) -> str:
        del facts["kind"]  # the line says it already
        decided = decision.to_json()
        decided["rules"] = [
            {"id": each.id, "action": str(each.action), **self.judge.describe(each.id)} for each in decision.rules
        ]
        line = _encode(
            {
                "v": JOURNAL_VERSION,
                "seq": self.judged,
                "time": self._wall.rfc3339(event.time),
                "since_boot_ns": event.time,
                "host": self.host,
                "kind": kind,
                "process": process,
                "event": facts,
                "decision": decided,
                "mode": str(effect.mode),
                "would": effect.would,
                "done": effect.done,
                "given": {part: digest for part, (digest, _) in digests.items()},
            }
        )
        return json_line(line)


def _write(
    line: str, digests: Mapping[str, tuple[str, str]], told: Told, sinks: Iterable[Callable[[str], bool]]
) -> None:
    completed = told.completed(line, digests)
    taken = [sink(completed) for sink in sinks]  # all of them, whatever the first one says
    if not all(taken):
        told.lost(digests)


class Wall:
    """Turns the kernel's boot clock into wall-clock text; compares both once a second, since the wall's may jump."""

    def __init__(self) -> None:
        """Look at the clocks."""
        self._offset, self._until = 0, 0
        self._second, self._prefix = -1, ""

    def rfc3339(self, boot_ns: int) -> str:
        """UTC with nanoseconds, such as 2026-11-23T12:00:00.000000001Z."""
        now = time.monotonic_ns()
        if now >= self._until:
            self._offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._until = now + 1_000_000_000
        second, ns = divmod(boot_ns + self._offset, 1_000_000_000)
        if second != self._second:
            self._second, self._prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{ns:09d}Z"
