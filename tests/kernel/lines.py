"""What a line of a journal says."""

from typing import Any

from krie.testing.agent import Line


def of(line: Line, *names: str) -> tuple[Any, ...]:
    """These fields of its event."""
    return tuple(line["event"][name] for name in names)


def rules_of(line: Line) -> set[str]:
    """The rules that matched it."""
    return {each["id"] for each in line["decision"]["rules"]}
