"""A silent mistake in a policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ..events.wire import Json


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One, with how to fix it."""

    place: str
    """FILE:LINE or FILE:LINE:COLUMN; of a plugin its name."""
    code: str
    """What kind of mistake it is, one word, for machines."""
    rule: str
    """The rule's id, or its name and package where it has none; may be empty."""
    what: str
    fix: str

    def __str__(self) -> str:
        """The mistake in one line."""
        rule = f"rule {self.rule}: " if self.rule else ""
        return f"{self.place}: {rule}{self.what}; {self.fix}"

    def to_json(self) -> dict[str, Json]:
        """For `krie policy check --json`."""
        file, *numbers = _split(self.place)
        line, column = [*map(int, numbers), 0, 0][:2]
        return {
            "code": self.code,
            "file": file,
            "line": line,
            "column": column,
            "rule": self.rule,
            "what": self.what,
            "fix": self.fix,
        }


def similar(name: str, names: Iterable[str]) -> str:
    """How to fix a name that is not one of these."""
    known = list(names)
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"


def _split(place: str) -> list[str]:
    """File, line, column, as far as there are."""
    parts = place.rsplit(":", 2)
    while len(parts) > 1 and not all(each.isdigit() for each in parts[1:]):
        parts = [":".join(parts[:2]), *parts[2:]]
    return parts
