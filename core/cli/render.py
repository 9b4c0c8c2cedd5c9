"""What people see: tables on a console, and the answer of a running agent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from ..output import DETAIL, unfiltered
from ..printable import lines_of, no_commands, one_line

_AS_WIDE_AS_NEEDED = 1 << 16
_STATES = {"alive": "green", "attached": "yellow", "silent": "bold red", "missing": "bold red"}
SEVERITIES = {"low": "cyan", "medium": "yellow", "high": "bold magenta", "critical": "bold red"}
"""From the least to the worst, with their colours."""
ACTIONS = {"allow": "dim", "log": "yellow", "override": "bold magenta", "kill": "bold red"}
Part = str | int | tuple[str, str] | Text
"""Of a line: a text, a text and its style, or what is a line already."""


class _Screen(Console):
    """Takes no text for markup, and no control character from a text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, in pieces: those that are controls are rich's own."""
        for each in super().render(renderable, options):
            yield each if each.control else Segment("\n".join(map(one_line, each.text.split("\n"))), each.style)


class _Piped(_Screen):
    def print(self, *objects: Any, **options: Any) -> None:
        """Without the blanks that fill the cells of a table's last column, and commands to a CI system."""
        with self.capture() as text:
            super().print(*objects, **options)
        self.file.write(no_commands(re.sub(r" +(?=\n)", "", text.get())))
        self.file.flush()


def console(*, stderr: bool = False) -> Console:
    """Where to print. As wide as the terminal; elsewhere nothing is cut or wrapped, unless `COLUMNS` says how wide."""
    options: dict[str, Any] = {"file": unfiltered(stderr=stderr), "markup": False, "emoji": False, "highlight": False}
    made = _Screen(**options)
    if made.is_terminal:
        return made
    return _Piped(**options, width=None if "COLUMNS" in os.environ else _AS_WIDE_AS_NEEDED)


def line(*parts: Part) -> Text:
    """One line, whatever is in its parts."""
    made = Text()
    for part in parts:
        if isinstance(part, Text):
            made.append_text(part)
        else:
            text, style = part if isinstance(part, tuple) else (part, "")
            made.append(one_line(text), style)
    return made


def lines(text: str) -> Text:
    """The cell of a table with a text whose own line breaks are meant, such as the verifier's."""
    return Text("\n".join(lines_of(text)))


def told(text: str) -> Text:
    """The same where it is not a cell: further lines are marked as not KRIe's own."""
    return Text(f"\n{DETAIL}".join(lines_of(text)))


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on the terminal, while it takes, what takes time. Gives a function that says what it goes on with."""
    if quiet:
        yield lambda _: None
        return
    with waiting(console(stderr=True), what) as status:
        yield lambda now: status.update(line(now))


def waiting(console: Console, what: str) -> Status:
    """A spinner, and what is waited for; not shown before it is started."""
    return console.status(line(what), spinner="line" if console.options.ascii_only else "dots")


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Part]], *, apart: bool = False) -> Table:
    """A table with a heading. What does not fit into a cell goes on in the next line. `apart`: below an empty line."""
    made = Table(
        *(Column(line(name), overflow="fold") for name in columns),
        title=line(Text("\n" if apart else ""), title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else line(cell) for cell in row))
    return made


def state(name: str) -> Text:
    """A probe's state, in its colour."""
    return line((name, _STATES.get(name, "white")))


def _kernel_tier(console: Console, tier: Mapping[str, Any]) -> None:
    rules = sorted({rule for each in tier["rules"].values() for rule in each})
    if rules:
        console.print(line(f"decided in the kernel, from the first occurrence on: {', '.join(rules)}"))


def engine(console: Console, found: Mapping[str, Any] | None) -> None:
    """Who decides, where an OPA server is to."""
    if found is None:
        return
    if found["deciding"] == "opa":
        console.print(line(("OPA", "bold"), f" at {found['server']} decides: {found['answered']} answers"))
    else:
        why: list[Part] = [f" instead of OPA at {found['server']}: ", told(found["reason"])]
        console.print(line(("The embedded engine decides", "bold red"), *why))


def status(console: Console, answer: Mapping[str, Any]) -> None:
    """The answer of a running agent."""
    modes = ", ".join(f"{name} {mode}s" for name, mode in answer["modes"].items()) or "no plugins"
    about = f" {answer['tgid']}, up {answer['up_s']} s, version {answer['version']}, policy {answer['policy']}: {modes}"
    console.print(line(("Agent", "bold"), about, ", guards itself" if answer["guard"] else ""))
    rate = 100 * answer["remembered"] // max(1, answer["events"])
    lost: list[Part] = [(f"{answer['lost']} lost", "bold red") if answer["lost"] else "none lost"]
    lost += [", ", (f"{answer['missed']} runs of programs left out", "bold red")] if answer["missed"] else []
    evicted = f"{answer['evicted']} live processes forgotten"
    lost += [", ", (evicted, "bold red")] if answer["evicted"] else []
    events = f"{answer['events']} events, {answer['events_per_s']}/s recently, "
    console.print(line(events, *lost, f", memo hit rate {rate} %"))
    works = [each for each in answer["probes"] if each["state"] in ("alive", "attached")]
    console.print(line(f"{len(works)} of {len(answer['probes'])} probes alive"))
    engine(console, answer["engine"])
    for name, why in answer["services"].items():
        if why:
            console.print(line(("service", "bold red"), f" {name}: ", told(why)))
    rows = [(each["name"], state(each["state"]), each["by"] or "-") for each in answer["probes"] if each not in works]
    if rows:
        console.print(table("Not alive", ("probe", "state", "by"), rows, apart=True))
    for name, why in answer["degraded"].items():
        console.print(line(("degraded", "bold red"), f" {name}: ", told(why)))
    _kernel_tier(console, answer["kernel_tier"])
    operations = answer["guarded_operations"]
    refused = f"{operations['refused']} are refused to them), {answer['bound_count']} verdicts on single operations"
    count = (f"{answer['poisoned_count']} poisoned", "bold")
    console.print()
    console.print(line(count, f" (of {operations['of']} guarded operations ", refused))
    if answer["poison_left_out"]:
        without = f"{answer['poison_left_out']} times"
        console.print(line((without, "bold red"), " a user had no room for another poisoned process"))
    poisoned = [(each["tgid"], each["comm"], each["rule"] or "-", f"{each['left_s']} s") for each in answer["poisoned"]]
    if poisoned:
        console.print(table("Poisoned", ("tgid", "name", "rule", "left"), poisoned))
    if answer["host"] is not None:
        by = f" by {answer['host']['rule']}, {answer['host']['left_s']} s left"
        console.print(line(("the whole host is bound", "bold red"), by))
    breakers = [
        (each["rule"], f"{each['processes']} of {each['of']}", ("tripped" if each["tripped"] else "", "bold red"))
        for each in answer["breakers"]
    ]
    if breakers:
        console.print(table("Rules that acted recently", ("rule", "processes", "breaker"), breakers, apart=True))
