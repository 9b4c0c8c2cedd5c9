"""The policy's part that programs in the kernel decide: brings it into force, and knows what is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..decision import Action, Mode
from ..events.event import BY_TABLE, Event
from ..plugin.probe import Sensor
from ..tier.domain import Numbers
from ..tier.kernel_tables import Generation, KernelTables
from ..tier.placement import Tiers
from ..tier.table_bytes import Encoder

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """The kernel's part of one policy."""

    tiers: Tiers = field(default_factory=Tiers)
    only_refuse: frozenset[str] = frozenset()
    """Ids of rules that neither kill nor poison."""
    generation: Generation | None = None
    """None: no tables, neither now nor before."""


def enforced_kinds(sensors: Iterable[Sensor], modes: Mapping[str, Mode]) -> dict[str, int]:
    """Numbers of the kinds that plugins in mode `enforce` declare, by name."""
    return {
        event.NAME: event.KIND
        for sensor in sensors
        for event in sensor.events
        if modes.get(sensor.name, Mode.OBSERVE) is Mode.ENFORCE
    }


class KernelTier:
    """What of a policy is in force in the kernel."""

    def __init__(
        self, enforced: Mapping[str, int], tables: KernelTables, number: Callable[[str], int], poison_s: int
    ) -> None:
        """Nothing is, yet. `enforced`: see `enforced_kinds`; `number` gives rules their numbers; `poison_s`: how long
        the killed stay poisoned."""
        self._tables, self._number, self._poison_s = tables, number, poison_s
        self._enforced = enforced
        self._in_force = Part()

    @property
    def numbers(self) -> Numbers:
        """Those in force, which the next policy's continue."""
        return self._tables.numbers

    @property
    def rules(self) -> Mapping[str, frozenset[str]]:
        """Ids of the rules in force by kind."""
        return {kind: rules for kind in self._enforced if (rules := self._in_force.tiers.in_kernel(kind))}

    def left_out(self, tiers: Tiers) -> frozenset[str]:
        """Kinds that are enforced, and about which a rule acts that the kernel does not decide."""
        acting = (each for each in tiers.placements if each.why and each.rule.fired.action >= Action.OVERRIDE)
        return frozenset(each.kind for each in acting if each.kind in self._enforced)

    def install(self, tiers: Tiers, numbers: Numbers, only_refuse: frozenset[str] = frozenset()) -> None:
        """Bring a policy's tables into force. Raises `KernelError`, `PolicyError`; then those before stay."""
        self.take_over(self.prepare(tiers, numbers, only_refuse))

    def prepare(self, tiers: Tiers, numbers: Numbers, only_refuse: frozenset[str] = frozenset()) -> Part:
        """Make a policy's tables, next to those in force. Either `take_over` or `drop` must follow.

        Raises `KernelError`, and `PolicyError` for tables that do not fit; then nothing has changed.
        """
        encoder = Encoder(self._tables.next_generation(), self._number, self._poison_s * _SECOND)
        tables = {
            kind: encoder.encode(tiers.tables[name], only_refuse)
            for name, kind in self._enforced.items()
            if name in tiers.tables
        }
        if not tables and not self._in_force.tiers.tables:
            return Part(tiers, only_refuse)
        return Part(tiers, only_refuse, self._tables.prepare(encoder.generation, tables, numbers))

    def take_over(self, part: Part) -> None:
        """Let what was prepared decide. Raises `KernelError`; then it was dropped, and what was in force stays."""
        if part.generation is not None:
            self._tables.take_over(part.generation)
        self._in_force = part

    def drop(self, part: Part) -> None:
        """Take back what `prepare` made."""
        if part.generation is not None:
            self._tables.drop(part.generation)

    def only_refuse(self, rules: frozenset[str]) -> None:
        """Let these rules do no more than refuse, and all others what they ask for. Raises as `install` does."""
        if rules != self._in_force.only_refuse:
            self.install(self._in_force.tiers, self._tables.numbers, rules)

    def remove(self) -> None:
        """Decide nothing in the kernel any more."""
        self.install(Tiers(), Numbers())

    def decided(self, event: Event, kind: str, stamped: str) -> frozenset[str]:
        """Ids of the rules that the kernel's table decided for an event; `stamped` is the one that it names."""
        if event.decided_by != BY_TABLE:
            return frozenset()
        if event.generation == self._tables.generation:
            return self._in_force.tiers.in_kernel(kind) | {stamped}
        return frozenset({stamped})

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        return {
            "generation": self._tables.generation,
            "rules": {kind: sorted(each) for kind, each in self.rules.items()},
            "only_refuse": sorted(self._in_force.only_refuse),
        }
