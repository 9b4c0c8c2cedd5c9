"""What people see of an agent that runs on their terminal: one readable line an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from ..enforce.containment import NAME as CONTAINMENT
from ..enforce.guard_sensor import NAME as GUARD
from .render import ACTIONS, SEVERITIES, Part, line, lines, state, table


class Live:
    """Renders the journal's lines of a running agent."""

    def __init__(self, console: Console) -> None:
        """Collects the state of probes until the agent has started, and then shows them together."""
        self._console = console
        self._probes: list[tuple[Part, ...]] = []
        self._started = False

    def show(self, entry: Mapping[str, Any]) -> None:
        """One line of the journal."""
        event, kind = entry["event"], entry["kind"]
        if kind == "krie.probe" and not self._started:
            if event["plugin"] in (CONTAINMENT, GUARD) and event["state"] == "alive":
                return  # many, and as they should be
            name = f"{event['plugin']}.{event['probe']}"
            self._probes.append((name, state(event["state"]), event["alternative"] or "-", lines(event["reason"])))
        elif kind == "krie.started":
            self._started = True
            self._console.print(table("Probes", ("probe", "state", "by", "what to know"), self._probes))
            armed = (
                f" in {event['armed_ms']} ms on {event['release']}: "
                f"{event['alive']} of {event['probes']} probes alive, policy {event['revision']} ("
            )
            self._console.print()
            self._console.print(
                line((f"KRIe {event['krie_version']} armed", "bold"), armed, ("Ctrl-C ends it", "dim"), ")")
            )
            self._console.print()
        elif kind == "krie.stopped":
            rate = 100 * event["remembered"] // max(1, event["events"])
            told = f" ({event['reason']}): {event['events']} events, {event['lost']} lost, memo hit rate {rate}%"
            self._console.print()
            self._console.print(line(("stopped", "bold"), told))
        else:
            self._console.print(_event(entry), soft_wrap=True)


def _event(entry: Mapping[str, Any]) -> Text:
    process, decision, parent = entry["process"], entry["decision"], entry["process"]["parent"]
    action = decision["action"]
    rules = sorted(decision["rules"], key=_weight, reverse=True)
    severity, title = (rules[0].get("severity", ""), rules[0].get("title", "")) if rules else ("", "")
    who = process["exe"] if process["exe_known"] else process["comm"]
    by = parent["exe"] if parent["exe_known"] else parent["comm"]
    return line(
        (f"{severity or '-':<8}", SEVERITIES.get(severity, "dim")),
        (f" {title} " if title else " ", "bold"),
        (entry["time"][11:23], "dim"),
        " ",
        (f"{action:<8}", ACTIONS[action]),
        " ",
        (entry["kind"], "cyan"),
        f" {_text(who)} ",
        (f"({process['tgid']}, user {process['uid']}, by {_text(by)})", "dim"),
        f" {_details(entry['event'])} ",
        (" ".join(each["id"] for each in rules), "yellow"),
        (f" would {'+'.join(entry['would'])}" if entry["would"] else "", "bold"),
        (f" {', '.join(entry['done'])}" if entry["done"] else "", "bold red"),
    )


def _weight(rule: Mapping[str, Any]) -> tuple[int, int]:
    """Of a rule that fired: what makes one line be called by it, and not by another."""
    severity = rule.get("severity", "")
    return (list(SEVERITIES).index(severity) if severity in SEVERITIES else -1, list(ACTIONS).index(rule["action"]))


def _details(event: Mapping[str, Any]) -> str:
    """What matters of an event in one line: its name, other texts and processes, and then numbers.

    No flags, nothing empty, and of another process who it is. A zero is told where its counterpart is none, as in
    `old_uid=1000 new_uid=0`.
    """
    others = tuple(f"{name}_" for name, value in event.items() if isinstance(value, Mapping))
    known = {
        name: value for name, value in event.items() if not isinstance(value, bool) and not name.startswith(others)
    }
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    paired = {_last_word(name) for name, value in numbers.items() if value} - {""}
    texts = sorted((name for name in known if name not in numbers and known[name]), key=lambda name: name != "name")
    told = (name for name, value in numbers.items() if value or _last_word(name) in paired)
    return " ".join(f"{name}={_value(known[name])}" for name in (*texts, *told))


def _last_word(name: str) -> str:
    """Of a name of several words."""
    return name.rpartition("_")[2] if "_" in name else ""


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        who = value.get("exe") if value.get("exe_known") else value.get("comm")
        return f"{_text(who)}({value.get('tgid')})"
    return _text(value)


def _text(value: Any) -> str:
    """A text with blanks is quoted: it could else be taken for more than one."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return repr(value.rstrip("\n")) if isinstance(value, str) and any(map(str.isspace, value)) else str(value)
