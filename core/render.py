"""What people see on a terminal: tables, and one readable line an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .blindness import missing_fields
from .doctor import Report
from .policy.engine import Rule

_STATES = {"alive": "green", "attached": "yellow", "silent": "bold red", "missing": "bold red"}
_ACTIONS = {"allow": "dim", "log": "yellow", "override": "bold magenta", "kill": "bold red"}


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
    verdict = (
        "[green]all probes work, no rule is blind[/]" if report.healthy else "[bold red]something does not work[/]"
    )
    console.print(f"\n{len(report.rules)} rules; {verdict}")


def rules(console: Console, found: Iterable[Rule]) -> None:
    """All rules of a policy."""
    rows = [
        (each.id, f"[{_ACTIONS[each.action]}]{each.action}[/]", each.severity, escape(each.title), escape(each.place))
        for each in sorted(found, key=lambda rule: rule.id)
    ]
    console.print(table("Rules", ("id", "action", "severity", "title", "place"), rows))


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
            name = f"{event['plugin']}.{event['probe']}"
            self._probes.append((name, _state(event["state"]), event["alternative"] or "-", escape(event["reason"])))
        elif kind == "krie.started":
            self._started = True
            self._console.print(table("Probes", ("probe", "state", "by", "what to know"), self._probes))
            self._console.print(
                f"\n[bold]armed[/] in {event['armed_ms']} ms on {escape(event['release'])}: "
                f"{event['alive']} of {event['probes']} probes alive, policy {event['revision']}, mode observe "
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
        who = process["exe"] if process["exe_known"] else process["comm"]
        by = process["parent"]["exe"] if process["parent"]["exe_known"] else process["parent"]["comm"]
        return (
            f"[dim]{line['time'][11:23]}[/] [{_ACTIONS[action]}]{action:<8}[/] [cyan]{escape(line['kind'])}[/] "
            f"{escape(who)} [dim]({process['tgid']}, user {process['uid']}, by {escape(by)})[/] "
            f"{escape(_details(line['event']))} [yellow]{escape(rules)}[/]{would}"
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
