"""The circuit breakers of rules: one that hits too many only refuses from then on, in the kernel, too."""

from __future__ import annotations

import logging
from typing import Any

from ..config import EnforcementConfig
from ..enforce.breaker import CircuitBreaker
from ..errors import KernelError, PolicyError
from ..events.enforcement import Breaker
from .kernel_tier import KernelTier
from .pending import Pending

_log = logging.getLogger("krie")
_SECOND = 1_000_000_000


class Breakers:
    """Tells when one trips and when it is re-armed, and has the kernel's tables follow."""

    def __init__(self, config: EnforcementConfig, tier: KernelTier, pending: Pending) -> None:
        """Start with no breaker tripped."""
        self._config, self._tier, self._pending = config, tier, pending
        self._behind = False
        """The kernel's tables did not take what is tripped, or no longer is."""
        period_ns = config.breaker_period_s * _SECOND
        self.circuit = CircuitBreaker(config.breaker_processes, period_ns, self._tripped)
        """Counts whom rules hit; the enforcer tells it."""

    def rearm(self, rule: str | None) -> list[str]:
        """Enforce this rule in full again, or all of them; returns which were tripped."""
        rearmed = self.circuit.rearm(rule)
        for each in rearmed:
            _log.warning("rule %s is enforced in full again", each)
            self._tell(each, 0, "rearmed")
        if rearmed:
            self._hold_back()
        return rearmed

    def tick(self) -> None:
        """Once a second: what the kernel's tables did not take is tried again."""
        if self._behind:
            self._hold_back()

    def status(self) -> list[dict[str, Any]]:
        """For `krie status`."""
        return [
            {"rule": rule, "processes": hits, "of": self._config.breaker_processes, "tripped": tripped}
            for rule, (hits, tripped) in self.circuit.state().items()
        ]

    def _tripped(self, rule: str, processes: int) -> None:
        _log.error(
            "rule %s hit %d users or programs in %d s: it only refuses now, until krie clear --rule %s or a reload",
            rule,
            processes,
            self._config.breaker_period_s,
            rule,
        )
        self._tell(rule, processes, "tripped")
        self._hold_back()

    def _tell(self, rule: str, processes: int, state: str) -> None:
        period_s = self._config.breaker_period_s
        self._pending.tell(Breaker, rule=rule, processes=processes, period_s=period_s, state=state)

    def _hold_back(self) -> None:
        """Let rules whose breaker is tripped only refuse in the kernel, too."""
        tripped = frozenset(rule for rule, (_, is_tripped) in self.circuit.state().items() if is_tripped)
        try:
            self._tier.only_refuse(tripped)
        except (KernelError, PolicyError) as error:
            if not self._behind:
                _log.error("the kernel's tables stay as they are, tripped breakers included: %s", error)
            self._behind = True
            return
        self._behind = False
