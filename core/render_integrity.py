"""What people see of `krie integrity`: made of its JSON document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from .render import table

_BOOT = "boot"


def integrity(console: Console, report: Mapping[str, Any]) -> None:
    """The whole report."""
    for each in report["checks"]:
        _check(console, each)
    compared = [each for each in report["checks"] if each["reference"]]
    if not compared:
        console.print("[yellow]nothing was compared[/]")
    elif report["intact"]:
        console.print("[green]nothing differs without a legal cause[/]")
    else:
        count = sum(len(each["differences"]) + each["others"] for each in compared)
        console.print(f"[bold red]{count} places differ, and nothing explains them[/]")


def _check(console: Console, check: Mapping[str, Any]) -> None:
    if check["reference"]:
        size = f"{check['compared'] / 1e6:.1f} MB"
        console.print(f"[bold]{escape(check['name'])}[/]: {size} compared with {escape(check['reference'])}")
    for cause, count in sorted(check["explained"].items()):
        why = "patched while booting, not told by the image" if cause == _BOOT else f"legal: {cause}"
        console.print(f"  {count} places differ ([dim]{escape(why)}[/])")
    rows = [
        (f"{each['address']:#x}", escape(each["place"]), each["was"], each["now"], escape(each["leads_to"]))
        for each in check["differences"]
    ]
    if rows:
        console.print(table("Unexplained", ("address", "place", "was", "now", "leads to"), rows))
    if check["others"]:
        console.print(f"  and {check['others']} more")
    for limit in check["not_looked_at"]:
        console.print(f"  [yellow]not looked at[/]: {escape(limit)}")
