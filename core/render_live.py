"""What people see of an agent that runs on their terminal: one readable line an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from .containment import NAME as CONTAINMENT
from .render import ACTIONS, state, table


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
            self._probes.append((name, state(event["state"]), event["alternative"] or "-", escape(event["reason"])))
        elif kind == "krie.started":
            self._started = True
            self._console.print(table("Probes", ("probe", "state", "by", "what to know"), self._probes))
            self._console.print(
                f"\n[bold]KRIe {escape(event['krie_version'])} armed[/] in {event['armed_ms']} ms "
                f"on {escape(event['release'])}: "
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
