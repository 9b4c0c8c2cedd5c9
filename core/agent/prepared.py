"""All that one policy brings with it, prepared in full before any of it is in force."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.policy import Policy
from ..processes.executables import Executables
from ..tier.candidate import Candidate
from .kernel_tier import Part


@dataclass(frozen=True, slots=True)
class Prepared:
    """A policy that nothing can keep from coming into force but one last write."""

    candidate: Candidate
    """The rules, their revision, and the names of executables."""
    part: Part
    """The tables of the rules that the kernel decides."""
    protected: Executables
    """Executables that no decision may hit."""

    @property
    def policy(self) -> Policy:
        """What decides in user space."""
        return self.candidate.policy
