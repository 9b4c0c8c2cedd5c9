"""The policy's part that programs in the kernel decide: brings it into force, and knows what is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .armed import Armed
from .decision import Mode
from .event import BY_TABLE, Event
from .kernel_tables import KernelTables
from .policy.domain import Numbers
from .policy.table_bytes import Encoder
from .policy.tier import Tiers

_SECOND = 1_000_000_000


class KernelTier:
    """What of a policy is in force in the kernel."""

    def __init__(self, armed: Armed, tables: KernelTables, number: Callable[[str], int], poison_s: int) -> None:
        """Nothing is, yet. `number` gives rules their numbers; `poison_s`: how long the killed stay poisoned."""
        self._tables, self._number, self._poison_s = tables, number, poison_s
        self._enforced = {
            event.NAME: event.KIND
            for sensor in armed.sensors
            for event in sensor.events
            if armed.modes.get(sensor.name, Mode.OBSERVE) is Mode.ENFORCE
        }
        self._tiers = Tiers()
        self._only_refuse: frozenset[str] = frozenset()

    @property
    def numbers(self) -> Numbers:
        """Those in force, which the next policy's continue."""
        return self._tables.numbers

    @property
    def rules(self) -> Mapping[str, frozenset[str]]:
        """Ids of the rules in force by kind."""
        return {kind: rules for kind in self._enforced if (rules := self._tiers.in_kernel(kind))}

    def install(self, tiers: Tiers, numbers: Numbers, only_refuse: frozenset[str] = frozenset()) -> None:
        """Bring a policy's tables into force. Raises `KernelError`; then those before stay."""
        encoder = Encoder(self._tables.next_generation(), self._number, self._poison_s * _SECOND)
        tables = {
            kind: encoder.encode(tiers.tables[name], only_refuse)
            for name, kind in self._enforced.items()
            if name in tiers.tables
        }
        if tables or self._tiers.tables:
            self._tables.install(tables, numbers)
        self._tiers, self._only_refuse = tiers, only_refuse

    def only_refuse(self, rules: frozenset[str]) -> None:
        """Let these rules do no more than refuse, and all others what they ask for. Raises `KernelError`."""
        if rules != self._only_refuse:
            self.install(self._tiers, self._tables.numbers, rules)

    def remove(self) -> None:
        """Decide nothing in the kernel any more."""
        self.install(Tiers(), Numbers())

    def decided(self, event: Event, kind: str, stamped: str) -> frozenset[str]:
        """Ids of the rules that the kernel's table decided for an event; `stamped` is the one that it names."""
        if event.decided_by != BY_TABLE:
            return frozenset()
        if event.generation == self._tables.generation:
            return self._tiers.in_kernel(kind) | {stamped}
        return frozenset({stamped})

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        return {
            "generation": self._tables.generation,
            "rules": {kind: sorted(each) for kind, each in self.rules.items()},
            "only_refuse": sorted(self._only_refuse),
        }
