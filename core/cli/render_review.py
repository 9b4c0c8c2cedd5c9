"""What people see of a review of a policy, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from ..review.report import ReviewReport
from .render import console as console_of
from .render import line, progress, table

_SEVERITIES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "dim"}


def report(console: Console, found: ReviewReport) -> None:
    """All of a report."""
    console.print(line((found.title, "bold")))
    console.print(table("", ("", ""), found.facts))
    for each in found.tables:
        rows = (tuple((cell, _SEVERITIES.get(cell, "")) for cell in row) for row in each.rows)
        # Not the table's own title, which is no wider than the table.
        console.print(Text("\n"), line((each.title, "bold")), sep="")
        console.print(table("", each.columns, rows))
    for warning in found.warnings:
        console.print(line(("note ", "bold yellow"), warning))


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on the terminal how much of so many bytes is done. Gives a function that is told how many."""
    shown = console_of(stderr=True)
    if not shown.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as progress:
        task = progress.add_task(what, total=total or None)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def waiting_for(what: str, *, quiet: bool) -> Iterator[None]:
    """Show on the terminal what is waited for."""
    with progress(what, quiet=quiet):
        yield
