"""Names in a policy that nothing has: it decides nevertheless."""

from __future__ import annotations

from collections.abc import Mapping

from ..processes.enrich import PROCESS_NAMES
from .engine import Rule


def unknown_names(rules: tuple[Rule, ...], fields: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Probable typing errors: kinds that no loaded plugin has, and event fields that none of a rule's kinds has."""
    problems = []
    for rule in rules:
        unknown = sorted(rule.kinds - fields.keys())
        if unknown:
            problems.append(f"{rule.place}: rule {rule.id} names {', '.join(unknown)}, which no loaded plugin emits")
        kinds = (rule.kinds & fields.keys()) or fields.keys()
        known = {"kind"}.union(*(fields[kind] for kind in kinds))
        for path in sorted(rule.reads):
            if path[:1] == ("event",) and len(path) > 1 and path[1] not in known:
                problems.append(
                    f"{rule.place}: rule {rule.id} reads input.event.{path[1]}, which its events do not have"
                )
            if path[:1] == ("process",) and len(path) > 1 and path[1] not in PROCESS_NAMES:
                problems.append(f"{rule.place}: rule {rule.id} reads input.process.{path[1]}, which there is not")
            if path and path[0] not in ("event", "process", "host", "health"):
                problems.append(f"{rule.place}: rule {rule.id} reads input.{path[0]}, which there is not")
    return tuple(problems)
