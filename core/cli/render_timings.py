"""What a start took, as `krie doctor --timings` shows it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from ..timings import Phase, Spent
from .render import Part, table


def timings(console: Console, phases: Iterable[Phase]) -> None:
    """By process and phase, in seconds."""
    phases = tuple(phases)
    rows: list[tuple[Part, ...]] = [(each.process, each.name, *_seconds(each.spent)) for each in phases]
    for process in dict.fromkeys(each.process for each in phases):
        total = sum((each.spent for each in phases if each.process == process), start=Spent())
        rows.append(((process, "bold"), ("in all", "bold"), *_seconds(total)))
    console.print(table("Timings, s", ("process", "phase", "wall", "user", "system"), rows, apart=True))


def _seconds(spent: Spent) -> tuple[str, str, str]:
    return f"{spent.wall_s:.3f}", f"{spent.user_s:.3f}", f"{spent.system_s:.3f}"
