"""The shipped rules: who sees what, and the METADATA of each."""

from __future__ import annotations

from pathlib import Path

from krie.config import Config
from krie.decision import Action
from krie.plugin.manager import Plugins
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Rule
from krie.tier.subject import subject_of
from krie.tier.tried import sources_of

from .markdown import codes, first_paragraph, table
from .tables import types

_ATTACK = "https://attack.mitre.org/techniques"


def table_of(config: Config, plugins: Plugins) -> str:
    """One line a rule."""
    rules, in_kernel = _rules(config, plugins)
    rows = [
        (
            f"[{each.id}](#{_anchor(each)})",
            each.metadata.title,
            each.metadata.severity,
            each.action,
            "kernel" if each.id in in_kernel else "user",
            codes(sorted(each.kinds)),
        )
        for each in rules
    ]
    return table(("rule", "fires when", "severity", "action", "tier", "on"), rows)


def details(config: Config, plugins: Plugins) -> str:
    """A section a rule, from the METADATA above it."""
    rules, in_kernel = _rules(config, plugins)
    return "\n".join(_section(each, in_kernel) for each in sorted(rules, key=lambda rule: (rule.package, rule.id)))


def grid(config: Config, plugins: Plugins) -> str:
    """What is seen, and by which rules stopped, by event."""
    rules, in_kernel = _rules(config, plugins)
    rows = []
    for each in types(plugins):
        of_it = [rule for rule in rules if each.name in rule.kinds]
        if not of_it or each.name.startswith("krie."):
            continue
        acts = [rule for rule in of_it if rule.fired.action >= Action.OVERRIDE]
        at_once = [rule.id for rule in acts if rule.id in in_kernel]
        afterwards = [rule.id for rule in acts if rule.id not in in_kernel]
        logged = [rule.id for rule in of_it if rule not in acts]
        what = first_paragraph(each.event.__doc__).partition(". ")[0].removesuffix(".")
        rows.append((what, *(", ".join(ids) or "-" for ids in (at_once, afterwards, logged))))
    return table(("seen", "stopped at once", "stopped afterwards", "logged"), rows)


def _rules(config: Config, plugins: Plugins) -> tuple[list[Rule], set[str]]:
    """All of them, by id; and the ids of those that the kernel decides."""
    engine = EmbeddedEngine(sources_of(config, plugins))
    tiers = subject_of(config, plugins, engine).tiers
    return sorted(engine.rules, key=lambda rule: rule.id), {e.rule.id for e in tiers.placements if not e.why}


def _anchor(rule: Rule) -> str:
    """As GitHub and the site make it of a heading."""
    text = f"{rule.id}: {rule.metadata.title}".lower()
    return "".join(each for each in text if each.isalnum() or each in " -_").replace(" ", "-")


def _section(rule: Rule, in_kernel: set[str]) -> str:
    about = rule.metadata
    technique = f"[{about.technique}]({_ATTACK}/{about.technique.replace('.', '/')}/)" if about.technique else "-"
    file = Path(rule.place.rpartition(":")[0])
    cells = (
        about.severity,
        rule.action,
        "kernel" if rule.id in in_kernel else "user",
        technique,
        codes(sorted(rule.kinds)),
        f"`policies/{file.relative_to(file.parents[1])}`",
    )
    head = ("severity", "action", "tier", "ATT&CK", "on", "in")
    return f"## {rule.id}: {about.title}\n\n{table(head, [cells])}\n{about.description}\n\n**Seen:** {about.seen}\n"
