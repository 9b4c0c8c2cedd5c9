"""An event with a field of each type, and in which tier a policy's rules about it are."""

from dataclasses import dataclass
from typing import Annotated, Any

from krie import Doc, Event, Inline
from krie.events.event import EventType
from krie.events.identity import Identity
from krie.events.wire import S64, U32, Bool, Chars, Choice, FlagSet, Pad1
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.tier.domain import Numbers
from krie.tier.placement import Tiers, find_tiers

DATA: dict[str, Any] = {
    "executables": {"apt": "/usr/bin/apt"},
    "uids": [5, 7],
    "limits": {"low": {"least": 3}, "high": {"least": 9}},
    "pairs": [{"uid": 1, "command": "load"}, {"uid": 2, "command": "pin"}],
    "names": ["kernel/a", "kernel/b"],
    "key": "process",
}


@dataclass(frozen=True, slots=True)
class Sample(Event):
    """An event with an inline field of each type."""

    KIND = 0x9009
    NAME = "sample.seen"

    number: Annotated[S64, Inline(), Doc("a number")]
    free: Annotated[U32, Doc("a field that is not inline")]
    flags: Annotated[tuple[str, ...], FlagSet("H", {1: "a", 4: "b"}), Inline()]
    command: Annotated[str, Choice("B", {0: "load", 1: "pin"}), Inline()]
    known: Annotated[Bool, Inline()]
    name: Annotated[str, Chars(16), Inline()]
    padding: Annotated[str, Chars(15)]
    pad: Pad1 = b""


KIND = EventType(Sample)


def tiers(text: str, data: dict[str, Any] | None = None) -> Tiers:
    source = PolicyFile("sample.rego", f"package krie.sample\n\n{text}\n")
    engine = EmbeddedEngine(PolicySources((source,), {**DATA, **(data or {})}, "revision"))
    numbers = Numbers().following({Identity(1, 1, 1): "apt"})
    return find_tiers(engine, [KIND], numbers, lambda kind, rule: "")
