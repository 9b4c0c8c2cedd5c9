"""What people see of a policy: its rules, their tiers, and what verifying them found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from .policy.engine import Rule
from .policy.explain import Explained
from .policy.verify import Verified
from .render import ACTIONS, table

_TIERS = {"kernel": "bold green", "user": "yellow"}


def rules(console: Console, found: Iterable[Rule]) -> None:
    """All rules of a policy."""
    rows = [
        (
            each.id,
            f"[{ACTIONS[each.action]}]{each.action}[/]",
            each.metadata.severity,
            escape(each.metadata.title),
            escape(each.place),
        )
        for each in sorted(found, key=lambda rule: rule.id)
    ]
    console.print(table("Rules", ("id", "action", "severity", "title", "place"), rows))


def tiers(console: Console, found: Iterable[Explained]) -> None:
    """One line a rule."""
    rows = []
    for each in found:
        placement, rule = each.placement, each.placement.rule
        size = f"{each.rows} of {each.of_rows} rows" if not placement.why else escape(placement.why)
        rows.append(
            (
                rule.id,
                f"[{ACTIONS[rule.action]}]{rule.action}[/]",
                f"[{_TIERS[placement.tier]}]{placement.tier}[/]",
                size,
                each.first_attempt,
            )
        )
    console.print(table("Tiers", ("id", "action", "tier", "why", "a first attempt"), rows))


def explained(console: Console, found: Iterable[Explained]) -> None:
    """All that is known of one rule."""
    for each in found:
        placement, rule = each.placement, each.placement.rule
        console.print(f"[bold]{rule.id}[/] {escape(rule.metadata.title)}  [dim]{escape(rule.place)}[/]")
        about = rule.metadata
        lines = [
            ("what", escape(about.description) or "-"),
            ("severity", escape(about.severity) or "-"),
            ("ATT&CK", escape(about.technique) or "-"),
            ("seen", escape(about.seen) or "-"),
            ("events", placement.kind),
            ("action", f"[{ACTIONS[rule.action]}]{rule.action}[/], scope {rule.fired.scope}"),
            ("tier", f"[{_TIERS[placement.tier]}]{placement.tier}[/]"),
            (
                "why",
                escape(placement.why) or "it depends on inline fields only, by comparisons with constants",
            ),
            ("fields", ", ".join(f"{field} ({count} classes)" for field, count in sorted(each.classes.items())) or "-"),
            ("rows", f"{each.rows} of {each.of_rows} of the kind's table" if not placement.why else "-"),
            ("can be carried out by", ", ".join(each.honours) or "-"),
            ("cannot by", ", ".join(each.lacks) or "-"),
            ("mode", str(each.mode)),
            ("a first attempt", each.first_attempt),
        ]
        console.print(table("", ("", ""), lines))


def verified(console: Console, found: Verified, by: Iterable[str]) -> None:
    """How much was tried, and how much of it mattered."""
    wrong = {each.kind for each in found.disagreements}
    rows = [
        (
            kind,
            f"{tried:,}",
            f"{found.decided[kind]:,}",
            "[bold red]differs[/]" if kind in wrong else "[green]agrees[/]",
        )
        for kind, tried in found.tried.items()
    ]
    console.print(table(f"Rego against {', '.join(by)}", ("events", "records", "a rule fired", ""), rows))
    if not rows:
        console.print("no rule of this policy is decided in the kernel")
