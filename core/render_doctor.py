"""What people see of `krie doctor`: made of its JSON document alone, which may come from a running agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from .kernel.origin import Origin
from .render import state, table


def doctor(console: Console, report: Mapping[str, Any]) -> None:
    """The whole report."""
    kernel, probes = report["kernel"], report["probes"]
    console.print(f"[bold]KRIe[/] {escape(report['version'])}, [bold]kernel[/] {escape(kernel['release'])}")
    source = report["from"]
    console.print(
        f"as the running agent (tgid {source['agent']}) reports" if source else "tried now, nothing stays attached"
    )
    because = f": {escape(report['programs']['problem'])}" if report["programs"]["problem"] else ""
    console.print(f"programs {Origin(report['programs']['from']).text}{because}")
    for type_, why in kernel["refused"].items():
        console.print(f"  refuses {type_}: [dim]{escape(why.splitlines()[0])}[/]")
    rows = [(each["name"], state(each["state"]), each["alternative"] or "-", escape(each["reason"])) for each in probes]
    console.print(table("\nProbes", ("probe", "state", "by", "what to know"), rows))
    _containment(console, report["containment"])
    unfilled = [(each["name"], ", ".join(each["not_filled"])) for each in probes if each["not_filled"]]
    if unfilled:
        console.print(table("\nFields without a real value here", ("probe", "fields"), unfilled))
    not_taken = [
        (each["name"], name, escape(reason.splitlines()[0]))
        for each in probes
        for name, reason in each["alternatives"].items()
        if reason not in ("alive", "not needed")
    ]
    if not_taken:
        console.print(table("\nAlternatives not taken", ("probe", "alternative", "why"), not_taken))
    blind = [(each["id"], escape(each["place"]), escape(each["why"])) for each in report["blind_rules"]]
    if blind:
        console.print(table("\nBlind rules", ("rule", "place", "why"), blind))
    for problem in report["problems"]:
        console.print(f"[yellow]note[/] {escape(problem)}")
    for plugin, reason in report["degraded"].items():
        console.print(f"[bold red]degraded[/] {escape(plugin)}: {escape(reason)}")
    without = [each["name"] for each in probes if each["state"] == "missing" and each["optional"]]
    works = f"all probes work but {', '.join(without)}, which this kernel lacks" if without else "all probes work"
    verdict = f"[green]{works}; no rule is blind[/]" if report["healthy"] else "[bold red]something does not work[/]"
    console.print(f"\n{report['rules']} rules; {verdict}")


def _containment(console: Console, found: Mapping[str, Any]) -> None:
    """What poison is worth here: one line where all or nothing works, a table of what does not otherwise."""
    console.print("\n[bold]Poison[/] ", end="")
    if not found["loaded"]:
        console.print("is [yellow]not tried[/]: an agent that only observes does not load what refuses operations")
    elif found["refused"] == found["of"]:
        by = ", ".join(sorted({each["alternative"] for each in found["probes"] if each["refuses"]}))
        console.print(f"[green]holds[/]: all {found['of']} guarded operations can be refused, by {by}")
    elif not found["refused"]:
        console.print(
            "[bold red]cannot hold[/] here: no guarded operation can be refused; a kill is a signal and no more"
        )
        console.print(f"  [dim]{escape(found['probes'][0]['reason'])}[/]")
    else:
        console.print(f"[bold red]leaks[/]: {found['refused']} of {found['of']} guarded operations can be refused")
        missing = [each for each in found["probes"] if not each["refuses"] and each["state"] != "alive"]
        rows = [(each["name"].partition(".")[2], state(each["state"]), escape(each["reason"])) for each in missing]
        console.print(table("Not refused", ("operation", "state", "why"), rows))
