"""What people see: tables on a console, and the answer of a running agent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_AS_WIDE_AS_NEEDED = 1 << 16
_STATES = {"alive": "green", "attached": "yellow", "silent": "bold red", "missing": "bold red"}
ACTIONS = {"allow": "dim", "log": "yellow", "override": "bold magenta", "kill": "bold red"}


class _Piped(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """Without the blanks that fill the cells of a table's last column."""
        with self.capture() as text:
            super().print(*objects, **options)
        self.file.write(re.sub(r" +(?=\n)", "", text.get()))
        self.file.flush()


def console(*, stderr: bool = False) -> Console:
    """Where to print. As wide as the terminal; elsewhere nothing is cut or wrapped, unless `COLUMNS` says how wide."""
    made = Console(stderr=stderr)
    if made.is_terminal:
        return made
    return _Piped(stderr=stderr, width=None if "COLUMNS" in os.environ else _AS_WIDE_AS_NEEDED)


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on the terminal, while it takes, what takes time. Gives a function that says what it goes on with."""
    if quiet:
        yield lambda _: None
        return
    with console(stderr=True).status(what) as status:
        yield status.update


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table with a heading; cells may hold markup."""
    made = Table(
        *columns, title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for row in rows:
        made.add_row(*row)
    return made


def state(name: str) -> str:
    """A probe's state, in its colour."""
    return f"[{_STATES.get(name, 'white')}]{name}[/]"


def _kernel_tier(console: Console, tier: Mapping[str, Any]) -> None:
    rules = sorted({rule for each in tier["rules"].values() for rule in each})
    if rules:
        console.print(f"decided in the kernel, from the first occurrence on: {escape(', '.join(rules))}")


def status(console: Console, answer: Mapping[str, Any]) -> None:
    """The answer of a running agent."""
    modes = ", ".join(f"{name} {mode}s" for name, mode in answer["modes"].items()) or "no plugins"
    console.print(
        f"[bold]Agent[/] {answer['tgid']}, up {answer['up_s']} s, version {escape(answer['version'])}, "
        f"policy {answer['policy']}: {escape(modes)}{', guards itself' if answer['guard'] else ''}"
    )
    rate = 100 * answer["remembered"] // max(1, answer["events"])
    lost = f"[bold red]{answer['lost']} lost[/]" if answer["lost"] else "none lost"
    lost += f", [bold red]{answer['missed']} runs of programs left out[/]" if answer["missed"] else ""
    console.print(
        f"{answer['events']} events, {answer['events_per_s']}/s of late, {lost}, {rate} % decided from memory"
    )
    works = [each for each in answer["probes"] if each["state"] in ("alive", "attached")]
    console.print(f"{len(works)} of {len(answer['probes'])} probes alive")
    rows = [(each["name"], state(each["state"]), each["by"] or "-") for each in answer["probes"] if each not in works]
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
