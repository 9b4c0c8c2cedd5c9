"""A difference of two policies as a report, for people and machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..decision import Decision
from ..events.wire import Json
from ..policy.engine import Rule
from .cases import Case, Difference
from .chosen import Chosen
from .compared import shown
from .report import ReviewFinding, ReviewReport, Table, policy_fact, weight

_MANY_KINDS = 4
_MOST_ROWS = 200


@dataclass(frozen=True, slots=True)
class TiersSaid:
    """Who decides the rules."""

    changes: Sequence[str] = ()
    """Which rules the kernel decides now, or no longer."""
    by_rule: Mapping[str, str] = field(default_factory=dict)


def report_of(found: Difference, old: Chosen, new: Chosen, rules: Mapping[str, Rule], tiers: TiersSaid) -> ReviewReport:
    """`rules`: those of both by id."""
    exact, tried = (
        _by_conditions(case for case in found.cases if case.exact),
        [case for case in found.cases if not case.exact],
    )
    findings = [
        _finding(rules, tiers, name, f"{name_of(case)}: {_change(*case.rules[name])}", case)
        for case in found.cases
        for name in case.rules
    ]
    findings += [_finding(rules, tiers, note.rule, note.what) for note in found.notes]
    tables = (
        _concerned(findings, tiers),
        Table(
            "Inputs that are decided differently, all of them",
            ("event", "when", "rule", "old policy", "new policy"),
            tuple(
                (kinds, " and ".join(case.when) or "always", name, before or "-", after or "-")
                for kinds, case in exact[:_MOST_ROWS]
                for name, (before, after) in case.rules.items()
            ),
        ),
        Table(
            "Inputs that were found by trying",
            ("event", "input", "rule", "old policy", "new policy"),
            tuple(
                (case.kind, _input(case), name, before or "-", after or "-")
                for case in tried
                for name, (before, after) in case.rules.items()
            ),
        ),
        Table(
            "For example (--format json has these inputs whole)",
            ("input", "old policy decides", "new policy decides"),
            tuple(
                (_input(case), shown(case.old), shown(case.new))
                for case in (*(each for _, each in exact[:_MOST_ROWS]), *tried)
            ),
        ),
        Table("What else is said of rules", ("rule", "what"), tuple((note.rule, note.what) for note in found.notes)),
    )
    more = len(exact) - _MOST_ROWS
    further = [f"{more:,} further rows of inputs are not shown here: --format json has them"] if more > 0 else []
    return ReviewReport(
        f"What differs between {old.name} and {new.name}",
        (
            ("old policy", policy_fact(old.name, old.commit, old.revision)),
            ("new policy", policy_fact(new.name, new.commit, new.revision)),
            ("rules compared exactly", ", ".join(found.exact) or "none"),
            ("rules that were tried", ", ".join(found.tried) or "none"),
            (
                "differences",
                "none" if found.is_empty else f"{len(exact) + len(tried)} of inputs, {len(found.notes)} else",
            ),
        ),
        tuple(each for each in tables if each.rows),
        tuple(findings),
        tuple(_warnings(found, dict.fromkeys((*further, *old.notes, *new.notes)), tiers.changes)),
        tuple(sorted(rules.keys() - {each.rule for each in findings})),
        {
            "old": {"name": old.name, "revision": old.revision, "commit": old.commit or None},
            "new": {"name": new.name, "revision": new.revision, "commit": new.commit or None},
            "tiers": dict[str, Json](tiers.by_rule),
            "differs": not found.is_empty,
            "decides_differently": bool(found.cases),
            "cases": [_json(case) for case in found.cases],
            "notes": [{"rule": each.rule, "what": each.what} for each in found.notes],
            "exact": list[Json](found.exact),
            "tried": dict[str, Json](found.tried),
            "tries": found.tries,
        },
    )


def _concerned(findings: Iterable[ReviewFinding], tiers: TiersSaid) -> Table:
    """The rules of which something differs, the worst first."""
    by_rule = {each.rule: each for each in findings}
    return Table(
        "Rules of which something differs",
        ("rule", "severity", "ATT&CK", "tier", "title"),
        tuple(
            (name, each.severity or "-", each.technique or "-", tiers.by_rule.get(name, "-"), each.title or "-")
            for name, each in sorted(by_rule.items(), key=lambda pair: (weight(pair[1].severity), pair[0]))
        ),
    )


def name_of(case: Case) -> str:
    """The inputs in one line."""
    if not case.exact:
        return f"{case.kind}, such as {_input(case)}"
    return f"{case.kind} when {' and '.join(case.when)}" if case.when else f"any {case.kind}"


def _change(before: str, after: str) -> str:
    if before and after:
        return f"{before} becomes {after}"
    return f"fires ({after})" if after else f"no longer fires ({before})"


def _finding(
    rules: Mapping[str, Rule], tiers: TiersSaid, name: str, what: str, case: Case | None = None
) -> ReviewFinding:
    rule = rules.get(name)
    metadata = rule.metadata if rule is not None else None
    tier = tiers.by_rule.get(name)
    details: tuple[str, ...] = (f"tier: {tier}",) if tier else ()
    details += (
        (f"input: {json.dumps(case.witness)}", f"old policy: {shown(case.old)}", f"new policy: {shown(case.new)}")
        if case is not None
        else ()
    )
    return ReviewFinding(
        name,
        what,
        metadata.severity if metadata is not None else "",
        metadata.title if metadata is not None else "",
        rule.place if rule is not None else "",
        details,
        metadata.technique if metadata is not None else "",
    )


def _by_conditions(cases: Iterable[Case]) -> list[tuple[str, Case]]:
    """Cases that are the same for several kinds, once."""
    found: dict[object, list[Case]] = {}
    for case in cases:
        found.setdefault((case.when, tuple(case.rules.items())), []).append(case)
    return [
        (
            ", ".join(case.kind for case in same)
            if len(same) <= _MANY_KINDS
            else f"{same[0].kind} and {len(same) - 1} other kinds",
            same[0],
        )
        for same in found.values()
    ]


def _input(case: Case) -> str:
    """What of an input is not plain."""
    others = {part: told for part in ("process", "host", "health") if (told := _telling(case.witness[part]))}
    return json.dumps({"event": _telling(case.witness["event"]), **others})


def _telling(part: object) -> object:
    """What of a part of it, such as a process, is not plain."""
    if not isinstance(part, dict):
        return part
    return {
        name: inner for name, value in part.items() if (inner := _telling(value) if isinstance(value, dict) else value)
    }


def _warnings(found: Difference, notes: Iterable[str], tiers: Iterable[str]) -> Iterable[str]:
    yield from notes
    yield from tiers
    if found.tried:
        yield (
            f"{found.tries:,} inputs near the constants of both policies were tried for {', '.join(found.tried)}: "
            "what was not found may differ nevertheless"
        )
    for name, why in found.tried.items():
        yield f"{name} was only tried: {why}"
    yield from found.problems


def _json(case: Case) -> dict[str, Json]:
    rules: dict[str, Json] = {
        name: {"old": before or None, "new": after or None} for name, (before, after) in case.rules.items()
    }
    return {
        "kind": case.kind,
        "exact": case.exact,
        "when": list[Json](case.when),
        "rules": rules,
        "witness": case.witness,
        "old": _decided(case.old),
        "new": _decided(case.new),
    }


def _decided(decision: Decision) -> Json:
    return decision.to_json()
