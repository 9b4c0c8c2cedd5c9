"""What people see of `krie integrity`: made of its JSON document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from .render import line, table

_WHY = {
    "boot": "patched while booting, not told by the image",
    "bpf": "code of BPF",
    "ftrace": "ftrace",
    "kprobes": "code of kprobes",
}
"""Of causes that do not speak for themselves."""


def integrity(console: Console, report: Mapping[str, Any]) -> None:
    """The whole report."""
    checks = report["checks"]
    console.print(table("", ("what", "size", "compared with", "legal", "unexplained"), map(_row, checks)))
    for each in checks:
        _details(console, each)
    if not report["intact"]:
        count = sum(map(_unexplained, checks))
        console.print(line((f"{count} places differ, and nothing explains them", "bold red")))
    elif report["full"]:
        console.print(line(("nothing differs without a legal cause", "green")))
    elif any(each["compared"] for each in checks):
        console.print(line(("what was compared differs nowhere without a legal cause; the code was not", "yellow")))
    else:
        console.print(line(("no memory was compared", "yellow")))


def _row(check: Mapping[str, Any]) -> tuple[str | Text, ...]:
    if not check["reference"]:
        return check["name"], "", Text("not compared", "yellow"), "", ""
    count = _unexplained(check)
    legal = ", ".join(f"{number} {_WHY.get(cause, cause)}" for cause, number in sorted(check["explained"].items()))
    return check["name"], _size(check["compared"]), check["reference"], legal, Text(str(count), "red" if count else "")


def _size(count: int) -> str:
    if not count:
        return ""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{max(count / 1e3, 0.1):.1f} kB"


def _unexplained(check: Mapping[str, Any]) -> int:
    return len(check["differences"]) + int(check["others"])


def _details(console: Console, check: Mapping[str, Any]) -> None:
    rows = [
        (f"{each['address']:#x}", each["place"], each["was"], each["now"], each["leads_to"])
        for each in check["differences"]
    ]
    if rows:
        title = f"Unexplained in {check['name']}"
        console.print(table(title, ("address", "place", "was", "now", "leads to"), rows, apart=True))
    if check["others"]:
        console.print(line(f"  and {check['others']} more"))
    for limit in check["not_looked_at"]:
        console.print(line(("not looked at", "yellow"), f": {limit}"))
