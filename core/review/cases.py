"""What two policies differ in, as values: inputs for which rules answer otherwise, and what else is said of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..decision import Decision

State = bool | None
"""Whether a rule fires; None: its package cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs for which rules answer otherwise."""

    kind: str
    when: tuple[str, ...]
    """Conditions that all of them meet; of a tried one none."""
    rules: Mapping[str, tuple[str, str]]
    """What each of the rules asks for, by the old and by the new policy; empty: it does not fire."""
    witness: dict[str, Any]
    """One of the inputs."""
    old: Decision
    new: Decision
    """What the policies decide for it, all rules together."""
    exact: bool


@dataclass(frozen=True, slots=True)
class Note:
    """Something else that differs about a rule."""

    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class Difference:
    """All that comparing two policies found."""

    cases: tuple[Case, ...]
    notes: tuple[Note, ...]
    exact: tuple[str, ...]
    """Rules that were said otherwise, and compared exactly for all of their kinds."""
    tried: Mapping[str, str]
    """Rules that were only tried, with the reason."""
    tries: int
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs, as far as was seen."""
        return not self.cases and not self.notes
