"""What people see on a terminal: tables, and one readable line an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .blindness import missing_fields
from .containment import NAME as CONTAINMENT
from .containment import OPERATIONS, guarded
from .doctor import Report

_STATES = {"alive": "green", "attached": "yellow", "silent": "bold red", "missing": "bold red"}
ACTIONS = {"allow": "dim", "log": "yellow", "override": "bold magenta", "kill": "bold red"}


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table with a heading; cells may hold markup."""
    made = Table(
        *columns, title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for row in rows:
        made.add_row(*row)
    return made


def _state(state: str) -> str:
    return f"[{_STATES.get(state, 'white')}]{state}[/]"


def doctor(console: Console, report: Report) -> None:
    """The whole report."""
    console.print(f"[bold]Kernel[/] {escape(report.release)}")
    for type_, why in report.refused.items():
        console.print(f"  refuses {type_}: [dim]{escape(why.splitlines()[0])}[/]")
    rows = [
        (
            each.name,
            _state(each.state),
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
        rows = [(each.probe.name, _state(each.state), escape(each.reason)) for each in missing]
        console.print(table("Not refused", ("operation", "state", "why"), rows))


class Live:
    """Renders the journal's lines of a running agent."""

    def __init__(self, console: Console) -> None:
        """Collects the state of probes until the agent has started, and then shows them together."""
        self._console = console
        self._probes: list[tuple[str, str, str, str]] = []
        self._started = False

    def show(self, line: Mapping[str, Any]) -> None:
        """One line of the journal."""
        event, kind = line["event"], line["kind"]
        if kind == "krie.probe" and not self._started:
            if event["plugin"] == CONTAINMENT and event["state"] == "alive":
                return  # many, and as they should be
            name = f"{event['plugin']}.{event['probe']}"
            self._probes.append((name, _state(event["state"]), event["alternative"] or "-", escape(event["reason"])))
        elif kind == "krie.started":
            self._started = True
            self._console.print(table("Probes", ("probe", "state", "by", "what to know"), self._probes))
            self._console.print(
                f"\n[bold]armed[/] in {event['armed_ms']} ms on {escape(event['release'])}: "
                f"{event['alive']} of {event['probes']} probes alive, policy {event['revision']} "
                "([dim]Ctrl-C ends it[/])\n"
            )
        elif kind == "krie.stopped":
            rate = 100 * event["remembered"] // max(1, event["events"])
            self._console.print(
                f"\n[bold]stopped[/] ({escape(event['reason'])}): {event['events']} events, {event['lost']} lost, "
                f"memo hit rate {rate}%"
            )
        else:
            self._console.print(self._event(line), soft_wrap=True, highlight=False)

    def _event(self, line: Mapping[str, Any]) -> str:
        process, decision = line["process"], line["decision"]
        action = decision["action"]
        rules = " ".join(each["id"] for each in decision["rules"])
        would = f" [bold]would {'+'.join(line['would'])}[/]" if line["would"] else ""
        done = f" [bold red]{escape(', '.join(line['done']))}[/]" if line["done"] else ""
        who = process["exe"] if process["exe_known"] else process["comm"]
        by = process["parent"]["exe"] if process["parent"]["exe_known"] else process["parent"]["comm"]
        return (
            f"[dim]{line['time'][11:23]}[/] [{ACTIONS[action]}]{action:<8}[/] [cyan]{escape(line['kind'])}[/] "
            f"{escape(who)} [dim]({process['tgid']}, user {process['uid']}, by {escape(by)})[/] "
            f"{escape(_details(line['event']))} [yellow]{escape(rules)}[/]{would}{done}"
        )


def _details(event: Mapping[str, Any]) -> str:
    """What matters of an event in one line: no flags, nothing empty, and of another process who it is."""
    parts = []
    others = tuple(f"{name}_" for name, value in event.items() if isinstance(value, Mapping))
    for name, value in event.items():
        if isinstance(value, Mapping):
            who = value.get("exe") if value.get("exe_known") else value.get("comm")
            parts.append(f"{name}={who}({value.get('tgid')})")
        elif value and not isinstance(value, bool) and not name.startswith(others):
            parts.append(f"{name}={_text(value)}")
    return " ".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return repr(value.rstrip("\n")) if isinstance(value, str) and (" " in value or "\n" in value) else str(value)


def _kernel_tier(console: Console, tier: Mapping[str, Any]) -> None:
    rules = sorted({rule for each in tier["rules"].values() for rule in each})
    if rules:
        console.print(f"decided in the kernel, from the first occurrence on: {escape(', '.join(rules))}")


def status(console: Console, answer: Mapping[str, Any]) -> None:
    """The answer of a running agent."""
    modes = ", ".join(f"{name} {mode}s" for name, mode in answer["modes"].items()) or "no plugins"
    console.print(
        f"[bold]Agent[/] {answer['tgid']}, up {answer['up_s']} s, policy {answer['policy']}: {escape(modes)}"
        f"{', guards itself' if answer['guard'] else ''}"
    )
    rate = 100 * answer["remembered"] // max(1, answer["events"])
    lost = f"[bold red]{answer['lost']} lost[/]" if answer["lost"] else "none lost"
    lost += f", [bold red]{answer['missed']} runs of programs left out[/]" if answer["missed"] else ""
    console.print(
        f"{answer['events']} events, {answer['events_per_s']}/s of late, {lost}, {rate} % decided from memory"
    )
    works = [each for each in answer["probes"] if each["state"] in ("alive", "attached")]
    console.print(f"{len(works)} of {len(answer['probes'])} probes alive")
    rows = [(each["name"], _state(each["state"]), each["by"] or "-") for each in answer["probes"] if each not in works]
    if rows:
        console.print(table("\nNot alive", ("probe", "state", "by"), rows))
    for name, why in answer["degraded"].items():
        console.print(f"[bold red]degraded[/] {escape(name)}: {escape(why)}")
    _kernel_tier(console, answer["kernel_tier"])
    operations = answer["guarded_operations"]
    console.print(
        f"\n[bold]{answer['poisoned_count']} poisoned[/] (of {operations['of']} guarded operations "
        f"{operations['refused']} are refused to them), {answer['bound_count']} verdicts on single operations"
    )
    poisoned = [
        (str(each["tgid"]), escape(each["comm"]), escape(each["rule"] or "-"), f"{each['left_s']} s")
        for each in answer["poisoned"]
    ]
    if poisoned:
        console.print(table("Poisoned", ("tgid", "name", "rule", "left"), poisoned))
    if answer["host"] is not None:
        host = answer["host"]
        console.print(f"[bold red]the whole host is bound[/] by {escape(host['rule'])}, {host['left_s']} s left")
    breakers = [
        (
            escape(each["rule"]),
            f"{each['processes']} of {each['of']}",
            "[bold red]tripped[/]" if each["tripped"] else "",
        )
        for each in answer["breakers"]
    ]
    if breakers:
        console.print(table("\nRules that hit somebody of late", ("rule", "processes", "breaker"), breakers))
