"""What the METADATA comment above a rule says about it, for people."""

from __future__ import annotations

from dataclasses import dataclass

from .annotations import Annotations


@dataclass(frozen=True, slots=True)
class Metadata:
    """Texts are empty where the rule does not have them."""

    title: str = ""
    description: str = ""
    """What happened, why it matters, and where the exceptions are."""
    severity: str = ""
    """`low`, `medium`, `high` or `critical`."""
    technique: str = ""
    """Id of the ATT&CK technique that it tells of."""
    seen: str = ""
    """What a user of the machine may notice of it, and by which ordinary work."""
    inline: bool = False
    """The rule demands that the kernel decides it (`enforce: inline`)."""


def metadata_of(annotations: Annotations) -> Metadata:
    """Line breaks in texts become blanks."""

    def text(*path: str) -> str:
        found = annotations.text(*path)
        return " ".join(found.value.split()) if found is not None else ""

    return Metadata(
        **{name: text(name) for name in ("title", "description")},
        **{name: text("custom", name) for name in ("severity", "technique", "seen")},
        inline=text("custom", "enforce") == "inline",
    )
