"""What the agent itself reports: its start and end, losses, probes, policies and plugins. Journaled and judged like any
event; their process is the agent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar

from .event import HEADER_FIELDS, Event, EventTypes
from .layout import Doc
from .wire import U32, U64, Chars, Choice, Pad4, Pad7

CAUSES = {1: "ring_full", 2: "undecodable", 3: "missing", 4: "journal_full", 5: "journal_failed"}
PROBE_STATES = {1: "alive", 2: "attached", 3: "silent", 4: "missing"}
POLICY_STATES = {1: "loaded", 2: "refused", 3: "failed"}
PLUGIN_STATES = {1: "fault", 2: "degraded"}
ENGINES = {1: "opa", 2: "embedded"}
SERVICE_STATES = {1: "trouble", 2: "well", 3: "dropped"}
JOURNAL_STATES = {1: "moved", 2: "removed", 3: "replaced", 4: "emptied", 5: "changed", 6: "opened", 7: "stuck"}


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The agent is armed: from here on events are seen."""

    KIND: ClassVar[int] = 0x0011
    NAME: ClassVar[str] = "krie.started"
    VERSION: ClassVar[int] = 2

    probes: Annotated[U32, Doc("probes configured")]
    alive: Annotated[U32, Doc("of these, proven alive by their canary")]
    armed_ms: Annotated[U32, Doc("time from start to armed, ms")]
    processes: Annotated[U32, Doc("processes found in /proc")]
    release: Annotated[str, Chars(64), Doc("kernel release")]
    revision: Annotated[str, Chars(32), Doc("digest over all policies and data")]
    krie_version: Annotated[str, Chars(32), Doc("version of KRIe")]
    programs: Annotated[
        str, Chars(16), Doc("where the programs come from: `compiled_dir` or `cache`, or `compiled` here and now")
    ]


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The agent is about to detach everything; nothing is seen after this."""

    KIND: ClassVar[int] = 0x0012
    NAME: ClassVar[str] = "krie.stopped"

    events: Annotated[U64, Doc("events judged since the start")]
    lost: Annotated[U64, Doc("records lost since the start, for whatever cause")]
    remembered: Annotated[U64, Doc("decisions that came out of the memo, of all events")]
    reason: Annotated[str, Chars(64), Doc("what ended it: a signal's name, a duration, an error")]


@dataclass(frozen=True, slots=True)
class Loss(Event):
    """Something that happened will never be seen here. Counts are exact."""

    KIND: ClassVar[int] = 0x0013
    NAME: ClassVar[str] = "krie.loss"

    count: Annotated[U64, Doc("records or lines lost since the last such event of this kind and cause")]
    total: Annotated[U64, Doc("the same since the start")]
    lost_kind: Annotated[
        str, Chars(64), Doc("name of the lost records' kind; empty for journal lines and broken bytes")
    ]
    cause: Annotated[str, Choice("B", CAUSES), Doc("`missing`: numbered, never received, and not for want of room")]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class ProbeState(Event):
    """How a probe stands: at start for each, later when it changes."""

    KIND: ClassVar[int] = 0x0014
    NAME: ClassVar[str] = "krie.probe"
    VERSION: ClassVar[int] = 2

    plugin: Annotated[str, Chars(64), Doc("the plugin, or `process` for the core's own probes")]
    probe: Annotated[str, Chars(64), Doc("the probe")]
    alternative: Annotated[str, Chars(32), Doc("the alternative that was taken; empty when none was")]
    reason: Annotated[str, Chars(1016), Doc("why it is not alive, and what it does not see")]
    blind: Annotated[str, Chars(256), Doc("rules that cannot fire as they were meant to for that, by id")]
    state: Annotated[
        str,
        Choice("B", PROBE_STATES),
        Doc("`attached`: no canary could prove more; `silent`: its canary did not arrive"),
    ]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class PolicyState(Event):
    """A policy came into force, was refused (the previous one stays in force), or failed while in force."""

    KIND: ClassVar[int] = 0x0015
    NAME: ClassVar[str] = "krie.policy"

    rules: Annotated[U32, Doc("rules in force")]
    state: Annotated[
        str,
        Choice("I", POLICY_STATES),
        Doc("what became of it; `failed`: it is in force and could not decide something in time"),
    ]
    revision: Annotated[str, Chars(32), Doc("digest of what is in force now")]
    reason: Annotated[str, Chars(504), Doc("why it was refused, with file and line, or how it failed")]
    blind: Annotated[str, Chars(256), Doc("rules in force that cannot fire as they were meant to here, by id")]


@dataclass(frozen=True, slots=True)
class PluginState(Event):
    """A plugin failed."""

    KIND: ClassVar[int] = 0x0016
    NAME: ClassVar[str] = "krie.plugin"

    state: Annotated[
        str, Choice("I", PLUGIN_STATES), Doc("`degraded`: its hook is no longer called, or it was left out")
    ]
    plugin: Annotated[str, Chars(64), Doc("the plugin")]
    reason: Annotated[str, Chars(508), Doc("what it raised, or why it was left out")]


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """The kernel skipped runs of a program: its probe did not see what happened. Looked for with the canaries."""

    KIND: ClassVar[int] = 0x001C
    NAME: ClassVar[str] = "krie.missed"

    count: Annotated[U64, Doc("runs left out since the last such event of this program")]
    total: Annotated[U64, Doc("the same since the start")]
    program: Annotated[str, Chars(64), Doc("the program: its function in C and, behind a point, its place")]


@dataclass(frozen=True, slots=True)
class Trouble(Event):
    """Something that the agent does again and again failed, as where it may open no more files. It goes on."""

    KIND: ClassVar[int] = 0x0041
    NAME: ClassVar[str] = "krie.trouble"

    count: Annotated[U64, Doc("how often it failed in this way since the last such event")]
    work: Annotated[str, Chars(32), Doc("what failed, such as `canaries`, `scan` or `control`")]
    reason: Annotated[str, Chars(256), Doc("why")]


@dataclass(frozen=True, slots=True)
class Held(Event):
    """Records beyond a user's budget were held back: what they are about was decided in the kernel, and is not told one
    by one. Counts are exact."""

    KIND: ClassVar[int] = 0x0021
    NAME: ClassVar[str] = "krie.held"

    alike: Annotated[U64, Doc("records since the last such event that were like one sent within a second before")]
    over: Annotated[U64, Doc("others: only the kernel's part of the policy was asked about them")]
    total: Annotated[U64, Doc("both since the start")]
    held_kind: Annotated[str, Chars(64), Doc("name of the records' kind")]
    user: Annotated[U32, Doc("user of whom most were, or the PID namespace of the container")]
    pad: Pad4 = b""


@dataclass(frozen=True, slots=True)
class JournalState(Event):
    """Somebody else did something to a file of the journal. It is reopened where that is needed, so that this line
    is in the file that has its place."""

    KIND: ClassVar[int] = 0x0028
    NAME: ClassVar[str] = "krie.journal"

    lines: Annotated[U64, Doc("lines that went elsewhere: written since the file was last seen in its place, or told")]
    bytes: Annotated[U64, Doc("what was cut off or added by somebody else; what a file held that was removed")]
    path: Annotated[str, Chars(256), Doc("where the file belongs")]
    detail: Annotated[str, Chars(248), Doc("what more there is to say")]
    state: Annotated[
        str,
        Choice("B", JOURNAL_STATES),
        Doc(
            "`opened`: in its place again after it could not be opened there, and lines went into what was moved away; "
            "`stuck`: it cannot be rotated, and grows"
        ),
    ]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class EngineState(Event):
    """Another engine decides what user space decides: the configured OPA server, or the embedded one, which stands in
    while the server cannot. Both have the same policy."""

    KIND: ClassVar[int] = 0x0030
    NAME: ClassVar[str] = "krie.engine"

    revision: Annotated[str, Chars(32), Doc("digest of the policy in force")]
    reason: Annotated[str, Chars(504), Doc("why the server does not decide; empty where it does")]
    stood_in: Annotated[U64, Doc("decisions of the embedded engine instead of the server since the start")]
    engine: Annotated[str, Choice("B", ENGINES), Doc("which one decides from now on")]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class ServiceState(Event):
    """A service of OPA's kind cannot be used, or can be used again: where the bundle comes from, and where decision
    logs and status go. Nothing that is decided waits for it."""

    KIND: ClassVar[int] = 0x0031
    NAME: ClassVar[str] = "krie.service"

    count: Annotated[U64, Doc("decisions that the decision log service will never get, of state `dropped`")]
    state: Annotated[str, Choice("I", SERVICE_STATES), Doc("told when it changes; `dropped`: decisions were")]
    service: Annotated[str, Chars(32), Doc("`bundle`, `decision_logs`, `status`; `courier`: the process for all three")]
    reason: Annotated[str, Chars(508), Doc("what is wrong")]


AGENT_EVENTS: tuple[type[Event], ...] = (
    Started,
    Stopped,
    Loss,
    ProbeState,
    PolicyState,
    PluginState,
    Missed,
    Held,
    JournalState,
    EngineState,
    ServiceState,
    Trouble,
)
_E = TypeVar("_E", bound=Event)


class OwnEvents:
    """Completes events that no probe sent: the agent's own, and those that plugins found in a scan."""

    def __init__(self, agent: Event, types: EventTypes) -> None:
        """`agent`: a header that the kernel filled for the agent itself."""
        self._header = {name: getattr(agent, name) for name in HEADER_FIELDS}
        self._types = types
        self._seq: Counter[int] = Counter()

    def complete(self, event: _E) -> _E:
        """The same event of now, in the agent's process; fields are cut to what they hold, texts at a character.

        Raises what a value raises that its field cannot hold.
        """
        kind = event.KIND
        layout = self._types[kind].layout
        own = {"kind": kind, "version": event.VERSION, "size": layout.size, "seq": self._seq[kind]}
        header = {**self._header, **own, "time": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}
        filled = replace(event, **header)
        fields = zip(layout.data_fields, layout.values(layout.encode(filled)), strict=True)
        values: Iterator[Any] = (
            each.wire.cut(getattr(filled, each.name)) if isinstance(each.wire, Chars) else value
            for each, value in fields
        )
        completed = type(event)(*values)
        self._seq[kind] += 1
        return completed
