"""The order in which mistakes are told: what is wrong with a rule before what follows from that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

NEVER = "never"
"""The code of a rule that never fires."""
FAILS = "fails"
"""The code of a rule that cannot be evaluated for some event."""


class _Coded(Protocol):
    @property
    def code(self) -> str: ...
    @property
    def rule(self) -> str: ...


_Told = TypeVar("_Told", bound=_Coded)


def causes_first(found: Iterable[_Told]) -> list[_Told]:
    """The same, but that a rule never fires stands behind what else is wrong with it: that is why, or may be."""
    ordered = list(found)
    for never in [each for each in ordered if each.code == NEVER and each.rule]:
        last = max(at for at, each in enumerate(ordered) if each.rule == never.rule)
        at = ordered.index(never)
        ordered.insert(max(at, last), ordered.pop(at))
    return ordered
