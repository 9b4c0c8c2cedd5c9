"""What people see of a policy: its rules, their tiers, and what verifying them found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from ..policy.engine import Rule
from ..tier.explain import Explained
from ..tier.verify import Verified
from .render import ACTIONS, Part, line, lines, table

_TIERS = {"kernel": "bold green", "user": "yellow"}


def rules(console: Console, found: Iterable[Rule]) -> None:
    """All rules of a policy."""
    rows = [
        (
            each.id,
            (each.action, ACTIONS[each.action]),
            each.metadata.severity,
            each.metadata.title,
            each.place,
        )
        for each in sorted(found, key=lambda rule: rule.id)
    ]
    console.print(table("Rules", ("id", "action", "severity", "title", "place"), rows))


def tiers(console: Console, found: Iterable[Explained]) -> None:
    """One line a rule."""
    rows = []
    for each in found:
        placement, rule = each.placement, each.placement.rule
        size = f"{each.rows} of {each.of_rows} rows" if not placement.why else placement.why
        rows.append(
            (
                rule.id,
                (rule.action, ACTIONS[rule.action]),
                (placement.tier, _TIERS[placement.tier]),
                size,
                each.first_attempt,
            )
        )
    console.print(table("Tiers", ("id", "action", "tier", "why", "a first attempt"), rows))


def explained(console: Console, found: Iterable[Explained]) -> None:
    """All that is known of one rule."""
    for each in found:
        placement, rule = each.placement, each.placement.rule
        about = rule.metadata
        console.print(line((rule.id, "bold"), f" {about.title}  ", (rule.place, "dim")))
        rows: list[tuple[Part, Part]] = [
            ("what", lines(about.description or "-")),
            ("severity", about.severity or "-"),
            ("ATT&CK", about.technique or "-"),
            ("seen", lines(about.seen or "-")),
            ("events", placement.kind),
            ("action", line((rule.action, ACTIONS[rule.action]), f", scope {rule.fired.scope}")),
            ("tier", (placement.tier, _TIERS[placement.tier])),
            ("why", placement.why or "it depends on inline fields only, by comparisons with constants"),
            ("fields", ", ".join(f"{field} ({count} classes)" for field, count in sorted(each.classes.items())) or "-"),
            ("rows", f"{each.rows} of {each.of_rows} of the kind's table" if not placement.why else "-"),
            ("can be carried out by", ", ".join(each.honours) or "-"),
            ("cannot by", ", ".join(each.lacks) or "-"),
            ("mode", str(each.mode)),
            ("a first attempt", each.first_attempt),
        ]
        console.print(table("", ("", ""), rows))


def verified(console: Console, found: Verified, by: Iterable[str]) -> None:
    """How much was tried, and how much of it mattered."""
    wrong = {each.kind for each in found.disagreements}
    rows = [
        (
            kind,
            f"{tried:,}",
            f"{found.decided[kind]:,}",
            ("differs", "bold red") if kind in wrong else ("agrees", "green"),
        )
        for kind, tried in found.tried.items()
    ]
    console.print(table(f"Rego against {', '.join(by)}", ("events", "records", "a rule fired", ""), rows))
    if not rows:
        console.print(line("no rule of this policy is decided in the kernel"))
