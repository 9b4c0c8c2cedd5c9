"""What people see of `krie integrity`: made of its JSON document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .render import line, table

_BOOT = "boot"


def integrity(console: Console, report: Mapping[str, Any]) -> None:
    """The whole report."""
    for each in report["checks"]:
        _check(console, each)
    if not report["intact"]:
        count = sum(len(each["differences"]) + each["others"] for each in report["checks"])
        console.print(line((f"{count} places differ, and nothing explains them", "bold red")))
    elif any(each["compared"] for each in report["checks"]):
        console.print(line(("nothing differs without a legal cause", "green")))
    else:
        console.print(line(("no memory was compared", "yellow")))


def _check(console: Console, check: Mapping[str, Any]) -> None:
    if check["reference"]:
        size = f"{check['compared'] / 1e6:.1f} MB " if check["compared"] else ""
        console.print(line((check["name"], "bold"), f": {size}compared with {check['reference']}"))
    for cause, count in sorted(check["explained"].items()):
        why = "patched while booting, not told by the image" if cause == _BOOT else f"legal: {cause}"
        console.print(line(f"  {count} places differ (", (why, "dim"), ")"))
    rows = [
        (f"{each['address']:#x}", each["place"], each["was"], each["now"], each["leads_to"])
        for each in check["differences"]
    ]
    if rows:
        console.print(table("Unexplained", ("address", "place", "was", "now", "leads to"), rows))
    if check["others"]:
        console.print(line(f"  and {check['others']} more"))
    for limit in check["not_looked_at"]:
        console.print(line("  ", ("not looked at", "yellow"), f": {limit}"))
