"""Which rules cannot see what they are about, since a probe is not alive here or does not fill what they read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..events.event import EventTypes, own_fields
from ..plugin.report import ProbeReport
from ..policy.engine import Rule


@dataclass(frozen=True, slots=True)
class BlindRule:
    """A rule that cannot fire on this machine as it was meant to."""

    rule: Rule
    why: str


def missing_fields(report: ProbeReport) -> frozenset[str]:
    """Fields of a probe's event that hold no real value here."""
    if report.probe.event is None:
        return frozenset()
    filled = report.alternative.fields if report.alternative is not None else frozenset()
    if report.alternative is not None and not filled:
        return frozenset()  # it does not say: the core's own probes fill all
    return own_fields(report.probe.event) - filled


def blind_rules(rules: Iterable[Rule], probes: Iterable[ProbeReport], types: EventTypes) -> Iterable[BlindRule]:
    """Rules whose event no living probe emits, or of which a field that they read is not filled by one that does."""
    by_kind: dict[str, list[ProbeReport]] = {}
    missing: dict[str, frozenset[str]] = {}  # by probe, and not again for each rule: it reads a class's declarations
    for each in probes:
        if each.probe.event is not None:
            by_kind.setdefault(each.probe.event.NAME, []).append(each)
            missing[each.name] = missing_fields(each)
    names = {each.name for each in types}
    for rule in rules:
        for kind in sorted(rule.kinds & names):
            reports = by_kind.get(kind, [])
            living = [each for each in reports if each.state in ("alive", "attached")]
            if reports and not living:
                yield BlindRule(rule, ", ".join(f"probe {each.name} is {each.state}" for each in reports))
            read = {path[1] for path in rule.reads if path[:1] == ("event",) and len(path) > 1}
            for report in living:
                if unfilled := sorted(read & missing[report.name]):
                    yield BlindRule(rule, f"probe {report.name} does not fill {', '.join(unfilled)}")
