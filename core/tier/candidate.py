"""A policy that was compiled and tried, and is not in force yet."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.policy import Policy
from ..processes.executables import Executables
from .domain import Numbers
from .evaluator import Evaluator
from .placement import Tiers


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that is ready to come into force."""

    policy: Policy
    tiers: Tiers
    numbers: Numbers
    executables: Executables
    problems: tuple[str, ...]
    """Names in it that nothing has, and executables that are not there."""
    evaluator: Evaluator | None = None
    """What decides for `policy`; None: something in this process."""

    def close(self) -> None:
        """It will not come into force, or no longer is."""
        self.executables.close()
        if self.evaluator is not None:
            self.evaluator.close()
