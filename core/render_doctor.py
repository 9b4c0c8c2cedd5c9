"""What people see of `krie doctor`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from .blindness import missing_fields
from .containment import OPERATIONS, guarded
from .doctor import Report
from .render import state, table


def doctor(console: Console, report: Report) -> None:
    """The whole report."""
    console.print(f"[bold]KRIe[/] {escape(report.version)}, [bold]kernel[/] {escape(report.release)}")
    because = f": {escape(report.programs_problem)}" if report.programs_problem else ""
    console.print(f"programs {report.programs.text}{because}")
    for type_, why in report.refused.items():
        console.print(f"  refuses {type_}: [dim]{escape(why.splitlines()[0])}[/]")
    rows = [
        (
            each.name,
            state(each.state),
            each.alternative.name if each.alternative is not None else "-",
            escape(each.reason),
        )
        for each in report.probes
    ]
    console.print(table("\nProbes", ("probe", "state", "by", "what to know"), rows))
    _containment(console, report)
    unfilled = [(each.name, ", ".join(sorted(missing_fields(each)))) for each in report.probes if missing_fields(each)]
    if unfilled:
        console.print(table("\nFields without a real value here", ("probe", "fields"), unfilled))
    not_taken = [
        (each.name, name, escape(reason.splitlines()[0]))
        for each in report.probes
        for name, reason in each.reasons.items()
        if reason not in ("alive", "not needed")
    ]
    if not_taken:
        console.print(table("\nAlternatives not taken", ("probe", "alternative", "why"), not_taken))
    blind = [(each.rule.id, escape(each.rule.place), escape(each.why)) for each in report.blind]
    if blind:
        console.print(table("\nBlind rules", ("rule", "place", "why"), blind))
    for problem in report.problems:
        console.print(f"[yellow]note[/] {escape(problem)}")
    for plugin, reason in report.degraded.items():
        console.print(f"[bold red]degraded[/] {escape(plugin)}: {escape(reason)}")
    without = [each.name for each in report.probes if each.state == "missing" and each.probe.optional]
    works = f"all probes work but {', '.join(without)}, which this kernel lacks" if without else "all probes work"
    verdict = f"[green]{works}; no rule is blind[/]" if report.healthy else "[bold red]something does not work[/]"
    console.print(f"\n{len(report.rules)} rules; {verdict}")


def _containment(console: Console, report: Report) -> None:
    """What poison is worth here: one line where all or nothing works, a table of what does not otherwise."""
    works = guarded(report.containment)
    console.print("\n[bold]Poison[/] ", end="")
    if len(works) == len(OPERATIONS):
        by = ", ".join(sorted({each.alternative.name for each in works if each.alternative is not None}))
        console.print(f"[green]holds[/]: all {len(works)} guarded operations can be refused, by {by}")
    elif not works:
        why = escape(next(each.reason for each in report.containment))
        console.print(
            "[bold red]cannot hold[/] here: no guarded operation can be refused; a kill is a signal and no more"
        )
        console.print(f"  [dim]{why}[/]")
    else:
        console.print(f"[bold red]leaks[/]: {len(works)} of {len(OPERATIONS)} guarded operations can be refused")
        missing = [each for each in report.containment if each not in works and each.state != "alive"]
        rows = [(each.probe.name, state(each.state), escape(each.reason)) for each in missing]
        console.print(table("Not refused", ("operation", "state", "why"), rows))
