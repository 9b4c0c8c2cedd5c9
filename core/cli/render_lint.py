"""What people see of a policy's examination: one place after the other, and how to fix it."""

from __future__ import annotations

from rich.console import Console

from ..review.findings import ERROR, WARNING, Report
from ..review.lint_formats import counted_as, summary
from .render import Part, line

_STYLES = {ERROR: "bold red", WARNING: "bold yellow"}


def lint(console: Console, report: Report) -> None:
    """Two lines a finding, then who looked."""
    for each in report.findings:
        place = str(each.place)
        told: list[Part] = [(place, "bold"), ": ", (each.severity, _STYLES[each.severity]), ": "]
        console.print(line(*told, each.told, " ", (f"[{each.name}]", "dim")), soft_wrap=True)
        console.print(line("    ", ("fix: ", "green"), each.fix), soft_wrap=True)
    if report.findings:
        console.print()
    for looked in report.looked:
        counted = ", ".join(counted_as(report.count(each, looked.tool), each) for each in (ERROR, WARNING))
        path = f" ({looked.path})" if looked.path and not looked.why else ""
        shown: Part = (f"did not look: {looked.why}", "bold yellow") if looked.why else f"{counted}{path}"
        console.print(line((f"{looked.tool:<6}", "bold"), shown), soft_wrap=True)
    for note in report.notes:
        console.print(line(("note  ", "bold"), note), soft_wrap=True)
    clean = not report.findings and not any(each.why for each in report.looked)
    console.print(line((summary(report), "bold green" if clean else "bold")), soft_wrap=True)
