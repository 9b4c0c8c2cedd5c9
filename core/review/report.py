"""What a review of a policy found, as a value that every format shows: see `krie.review.report_text`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..events.wire import Json

SEVERITIES = ("critical", "high", "medium", "low")
"""From the worst on, as reports show them."""
TIERS = ("kernel", "user")
SIDES = ("old", "new")
"""The policies that are compared, as a report's `data` call them."""
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
"""How code scanners call severities."""


@dataclass(frozen=True, slots=True)
class ReviewFinding:
    """One thing that differs."""

    rule: str
    what: str
    """In one line."""
    severity: str = ""
    title: str = ""
    place: str = ""
    """FILE:LINE of the rule."""
    details: tuple[str, ...] = ()
    technique: str = ""
    """ATT&CK's id."""

    @property
    def level(self) -> str:
        """`error`, `warning` or `note`."""
        return LEVELS.get(self.severity, "warning")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts, as a part of a report."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def weight(severity: str) -> int:
    """By which findings are ordered: the worst first, and last what has no severity."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def policy_fact(name: str, commit: str, revision: str) -> str:
    """How a report names a policy; `commit`: empty where it is not of git."""
    return f"{name} (commit {commit}, revision {revision})" if commit else f"{name} (revision {revision})"


@dataclass(frozen=True, slots=True)
class ReviewReport:
    """All of it. Every text may hold what others chose."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What was compared, and how much of it."""
    tables: tuple[Table, ...]
    findings: tuple[ReviewFinding, ...]
    warnings: tuple[str, ...] = ()
    """What nobody may take this report to say."""
    passed: tuple[str, ...] = ()
    """Rules of which nothing differs."""
    data: Mapping[str, Json] = field(default_factory=dict)
    """The same for machines; of each of `SIDES` its name, revision and commit."""
