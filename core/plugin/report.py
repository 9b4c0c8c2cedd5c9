"""How one probe stands, as health tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .probe import Alternative, Probe


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """How one probe stands."""

    plugin: str
    probe: Probe
    alternative: Alternative | None
    """The one that was taken."""
    state: str
    """`alive`, `attached` (no canary can prove more), `silent` (its canary did not arrive) or `missing`."""
    reasons: Mapping[str, str]
    """For each alternative why it was taken or not."""
    unproven: str = ""
    """Why its canary could prove nothing."""

    @property
    def name(self) -> str:
        """`<plugin>.<probe>`"""
        return f"{self.plugin}.{self.probe.name}"

    @property
    def reason(self) -> str:
        """Why it is not alive, and what it does not see, in one line; empty when there is nothing to say."""
        if self.alternative is None:
            return "; ".join(f"{name}: {why.splitlines()[0]}" for name, why in self.reasons.items())
        limits = [self.alternative.limits] if self.alternative.limits else []
        cost = ["every system call is slower"] if self.alternative.every_syscall else []
        state = ["its canary did not arrive"] if self.state == "silent" else []
        unproven = [self.unproven] if self.unproven else []
        return "; ".join([*state, *unproven, *cost, *limits])
