"""What examining a policy found, and who looked: values, whatever they are shown as."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..policy.causes import causes_first

ERROR, WARNING = "error", "warning"
KRIE, OPA, REGAL = "krie", "opa", "regal"
TOOLS = (KRIE, OPA, REGAL)
"""Who looks, in this order."""
_PLACE = re.compile(r"(?P<file>.+?)(?::(?P<line>\d+))?(?::(?P<column>\d+))?", re.DOTALL)
_SAID = re.compile(r"(?P<place>.+?:\d+(?::\d+)?): (?P<what>.*)|(?P<file>/[^:]*): (?P<of_file>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file; 0 for a line or a column that is not known."""

    file: str
    """Its path; relative to the folder in which the command runs, if it lies below that."""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """FILE:LINE:COLUMN, as far as known."""
        return ":".join([self.file, *(str(each) for each in (self.line, self.column) if each)])


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with how to fix it."""

    place: Place
    tool: str
    """One of `TOOLS`."""
    code: str
    """What kind of finding it is, by the tool's name for it."""
    what: str
    fix: str
    severity: str = ERROR
    rule: str = ""
    """Id of the policy's rule; empty where it is about none."""
    url: str = ""
    """Where the tool explains it."""

    @property
    def name(self) -> str:
        """TOOL/CODE."""
        return f"{self.tool}/{self.code}"

    @property
    def fingerprint(self) -> str:
        """Stays the same while other lines of the file come and go."""
        parts = (self.name, self.place.file, self.rule, self.what)
        return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()

    @property
    def told(self) -> str:
        """What is wrong, with the rule that it is wrong with."""
        return f"rule {self.rule}: {self.what}" if self.rule else self.what


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of asking one tool."""

    tool: str
    path: str = ""
    """The program's."""
    why: str = ""
    """Why it did not look; empty: it did."""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one examination, and which tools looked."""

    revision: str
    """The policy's; empty where it could not be read."""
    looked: tuple[Looked, ...]
    findings: tuple[Finding, ...]
    """By place; what only follows from a mistake in a rule comes behind that."""
    notes: tuple[str, ...] = ()
    """What else is to be known of what was looked at."""

    def count(self, severity: str, tool: str = "") -> int:
        """How many there are of a severity, of one tool or of all."""
        return sum(each.severity == severity and tool in ("", each.tool) for each in self.findings)


def report_of(
    revision: str,
    looked: Sequence[Looked],
    findings: Iterable[Finding],
    required: Iterable[str],
    place: Place,
    notes: tuple[str, ...] = (),
) -> Report:
    """In order, and with an error at `place` for each tool that was `required` and did not look."""
    missing = [
        Finding(
            place,
            KRIE,
            "not-run",
            f"{each.tool} was required, and did not look: {each.why}",
            "install it, or remove what keeps it from looking",
        )
        for each in looked
        if each.why and each.tool in required
    ]
    order = lambda each: (each.place.file, each.place.line, each.place.column, TOOLS.index(each.tool), each.what)  # noqa: E731
    return Report(revision, tuple(looked), (*missing, *causes_first(sorted(set(findings), key=order))), notes)


def place_from(text: str, folder: str | None = None) -> Place:
    """A place out of FILE, FILE:LINE or FILE:LINE:COLUMN."""
    found = _PLACE.fullmatch(text)
    assert found is not None, text
    return Place(near(found["file"], folder), int(found["line"] or 0), int(found["column"] or 0))


def said_of(message: str, otherwise: Place) -> tuple[Place, str]:
    """An error's place and the rest of its message; `otherwise`: where it names no place."""
    found = _SAID.fullmatch(message)
    if found is None:
        return otherwise, message
    return place_from(found["place"] or found["file"]), found["what"] or found["of_file"]


def near(file: str, folder: str | None = None) -> str:
    """The path from the working folder (or this one) on, if it lies below."""
    base = Path(folder or ".").resolve()
    path = base / file
    # The folder that holds it may be named by way of a link; the file itself stays what it is called.
    real = path.parent.resolve() / path.name
    return str(real.relative_to(base) if real.is_relative_to(base) else path)
