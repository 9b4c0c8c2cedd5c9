"""A policy with its tables as bytes, and what its rules see of a record: what `krie policy` explains and verifies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..config import Config
from ..decision import merge
from ..events.event import CONTAINER, INFLUENCED, KERNEL_THREAD, EventType
from ..events.identity import Identity
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.embedded import EmbeddedEngine
from .ability import cannot, sent_kinds, ways_anywhere
from .domain import Numbers
from .placement import Tiers, find_tiers
from .table_bytes import Encoder

GENERATION = 1
"""Of its tables."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy, with its tables as bytes."""

    engine: EmbeddedEngine
    tiers: Tiers
    numbers: Numbers
    types: Sequence[EventType]
    poison_s: int = 600
    rules: list[str] = field(default_factory=lambda: [""])
    """By their numbers."""

    def number(self, rule: str) -> int:
        """The number of a rule in the tables."""
        if rule not in self.rules:
            self.rules.append(rule)
        return self.rules.index(rule)

    def tables(self) -> dict[int, bytes]:
        """The encoded tables by the number of their kind."""
        encoder = Encoder(GENERATION, self.number, self.poison_s * 1_000_000_000)
        return {each.kind: encoder.encode(self.tiers.tables[each.name]) for each in self.types if self.has(each)}

    def has(self, event_type: EventType) -> bool:
        """Whether the kernel decides any rule of this kind."""
        return bool(self.tiers.in_kernel(event_type.name))

    def document(self, event_type: EventType, raw: bytes) -> dict[str, Any]:
        """What rules see of the record, as far as programs know it."""
        event = event_type.event(*event_type.layout.values(raw))
        identity = Identity(event.exe_dev, event.exe_ino, event.exe_generation)
        number = None if event.context & INFLUENCED else self.numbers.files.get(identity)
        names = [name for name, numbers in self.numbers.programs.items() if number in numbers]
        return {
            "event": {"kind": event_type.name, **event_type.json(event)},
            "process": {
                "uid": event.uid,
                "euid": event.euid,
                "gid": event.gid,
                "program": names[0] if names else "",
                "kernel_thread": bool(event.context & KERNEL_THREAD),
                "container": bool(event.context & CONTAINER),
            },
        }

    def decided(self, event_type: EventType, document: Mapping[str, Any]) -> str | None:
        """The rule that the engine finds strongest among the kernel's; None where a package cannot be evaluated."""
        in_kernel = self.tiers.in_kernel(event_type.name)
        packages = [each for each in self.engine.packages if any(rule.id in in_kernel for rule in each.rules)]
        fired = []
        for answer in self.engine.evaluate(packages, json.dumps(document)):
            if not isinstance(answer, tuple):
                return None
            fired += [rule for rule in answer if rule.id in in_kernel]
        merged = merge(fired, tier="kernel", revision="")
        return next((rule.id for rule in merged.rules if rule.action == merged.action), "")


def subject_of(config: Config, loaded: Plugins, engine: EmbeddedEngine) -> Subject:
    """The policy as it is where the probes can do what rules ask for. Executables are taken to be distinct files."""
    ways = ways_anywhere(loaded.sensors)
    kinds = sent_kinds(ways, event_types(loaded))
    numbers = Numbers().following({Identity(1, at, 0): name for at, name in enumerate(config.executables, 1)})
    tiers = find_tiers(engine, kinds, numbers, partial(cannot, ways))
    return Subject(engine, tiers, numbers, kinds, config.enforcement.poison_s)
