"""The circuit breaker: a rule that hits too many distinct processes in a period is wrong more often than right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .process import Key


@dataclass(slots=True)
class _Hits:
    """What one rule did of late."""

    processes: dict[Key, int] = field(default_factory=dict)
    """When each was last hit, ns, oldest first."""
    tripped: bool = False


class CircuitBreaker:
    """One breaker a rule. A tripped one stays so until it is re-armed."""

    def __init__(self, most: int, period_ns: int, trip: Callable[[str, int], None]) -> None:
        """`trip` is told the rule and how many processes it hit, once."""
        self._most, self._period_ns, self._trip = most, period_ns, trip
        self._rules: dict[str, _Hits] = {}

    def allows(self, rule: str, process: Key, now: int) -> bool:
        """Count that a rule is about to hit a process; False where the rule must not, or this is one too many."""
        hits = self._rules.setdefault(rule, _Hits())
        if hits.tripped:
            return False
        hits.processes.pop(process, None)
        hits.processes[process] = now
        for known, at in list(hits.processes.items()):
            if at > now - self._period_ns:
                break
            del hits.processes[known]
        if len(hits.processes) <= self._most:
            return True
        hits.tripped = True
        self._trip(rule, len(hits.processes))
        return False

    def rearm(self, rule: str | None = None) -> list[str]:
        """Forget everything about a rule, or all; returns the rules that were tripped."""
        wanted = list(self._rules) if rule is None else [rule]
        return [each for each in wanted if (hits := self._rules.pop(each, None)) is not None and hits.tripped]

    def state(self) -> Mapping[str, tuple[int, bool]]:
        """For each rule that hit somebody: how many in the period, and whether it is tripped."""
        return {rule: (len(hits.processes), hits.tripped) for rule, hits in sorted(self._rules.items())}
