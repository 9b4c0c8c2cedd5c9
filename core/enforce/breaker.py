"""The circuit breaker: a rule that kills or poisons many who have nothing to do with each other is rather wrong than
right. It then only refuses. Refusing a single operation never trips it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..processes.principal import Principal


@dataclass(slots=True)
class _Hits:
    """What one rule did in the period."""

    principals: dict[Principal, int] = field(default_factory=dict)
    """When each was last hit, ns, oldest first."""
    tripped: bool = False


class CircuitBreaker:
    """One breaker a rule. A tripped one stays so until it is re-armed."""

    def __init__(self, most: int, period_ns: int, trip: Callable[[str, int], None]) -> None:
        """`trip` is told the rule and how many principals it hit, once."""
        self._most, self._period_ns, self._trip = most, period_ns, trip
        self._rules: dict[str, _Hits] = {}

    def allows(self, rule: str, principal: Principal, now: int) -> bool:
        """Count that a rule is about to kill or poison; False where it must not, or this is one too many."""
        hits = self._rules.setdefault(rule, _Hits())
        if hits.tripped:
            return False
        hits.principals.pop(principal, None)
        hits.principals[principal] = now
        for known, at in list(hits.principals.items()):
            if at > now - self._period_ns:
                break
            del hits.principals[known]
        if len(hits.principals) <= self._most:
            return True
        hits.tripped = True
        self._trip(rule, len(hits.principals))
        return False

    def rearm(self, rule: str | None = None) -> list[str]:
        """Forget everything about a rule, or all; returns the rules that were tripped."""
        wanted = list(self._rules) if rule is None else [rule]
        return [each for each in wanted if (hits := self._rules.pop(each, None)) is not None and hits.tripped]

    def state(self) -> Mapping[str, tuple[int, bool]]:
        """For each rule that hit somebody: how many principals in the period, and whether it is tripped."""
        return {rule: (len(hits.principals), hits.tripped) for rule, hits in sorted(self._rules.items())}
