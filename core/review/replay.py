"""What a change of the policy would have done: recorded events decided by two policies, and the differences."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..events.wire import Json
from ..policy.engine import Package, Rule
from .compared import NEW, OLD, SIDES, UNKNOWN_VALUES, Tally
from .report import ReviewFinding, ReviewReport, Table, policy_fact

_SHOWN = 5
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two policies, as far as a report shows it."""

    name: str
    revision: str
    packages: Sequence[Package]
    commit: str = ""
    """As `krie.review.chosen` has it."""

    @property
    def rules(self) -> dict[str, Rule]:
        """All rules of this policy by id."""
        return {rule.id: rule for package in self.packages for rule in package.rules}


def report_of(tally: Tally, old: Side, new: Side, files: Sequence[Path], notes: Iterable[str]) -> ReviewReport:
    """For people and machines."""
    rules = {**old.rules, **new.rules}
    grouped: dict[tuple[str, str], list[Counter[str]]] = {}
    totals: Counter[tuple[str, str]] = Counter()
    for (rule, change, *by), count in tally.changes.items():
        totals[rule, change] += count
        counters = grouped.setdefault((rule, change), [Counter(), Counter(), Counter()])
        for counter, name in zip(counters, by, strict=True):
            counter[name] += count
    findings, rows, changes = [], [], list[Json]()
    for (rule, change), count in sorted(totals.items(), key=lambda each: (-each[1], each[0])):
        known = rules.get(rule)
        metadata = known.metadata if known is not None else None
        severity = metadata.severity if metadata is not None else ""
        title = metadata.title if metadata is not None else ""
        technique = metadata.technique if metadata is not None else ""
        programs, hosts, days = grouped[rule, change]
        examples = [
            f"{_place(files, each.file, each.line)} {each.time} {each.process}: {each.old} -> {each.new}"
            for each in tally.examples.get((rule, change), ())
        ]
        rows.append((rule, severity, change, f"{count:,}", _most(programs), _most(hosts), _days(days)))
        details = (f"programs: {_most(programs)}", f"hosts: {_most(hosts)}", f"days: {_days(days)}", *examples)
        place = known.place if known is not None else ""
        what = f"{change} for {count:,} recorded event{'s' if count != 1 else ''}"
        findings.append(ReviewFinding(rule, what, severity, title, place, details, technique))
        by_name = {name: _top(each) for name, each in (("programs", programs), ("hosts", hosts), ("days", days))}
        changes.append({"rule": rule, "change": change, "events": count, **by_name, "examples": list[Json](examples)})
    return ReviewReport(
        f"What {new.name} would have decided, compared with {old.name}",
        _facts(tally, old, new),
        tuple(each for each in (_outcomes(tally), _changed(rows), _examples(findings)) if each.rows),
        tuple(findings),
        (*notes, *_warnings(tally, old, new, files)),
        tuple(sorted(rules.keys() - {each.rule for each in findings})),
        {
            "old": {"name": old.name, "revision": old.revision, "commit": old.commit or None},
            "new": {"name": new.name, "revision": new.revision, "commit": new.commit or None},
            "lines": tally.lines,
            "same": tally.same,
            "different": tally.different,
            "undecided": dict[str, Json](tally.undecided),
            "absent": tally.absent,
            "recorded_under_old": tally.in_force_then,
            "reproduced": tally.reproduced,
            "errors": dict[str, Json](tally.errors),
            "changes": changes,
        },
    )


def _facts(tally: Tally, old: Side, new: Side) -> tuple[tuple[str, str], ...]:
    undecided = sum(tally.undecided.values())
    return (
        ("old policy", policy_fact(old.name, old.commit, old.revision)),
        ("new policy", policy_fact(new.name, new.commit, new.revision)),
        ("recorded events", f"{tally.lines:,}"),
        ("decided alike", f"{tally.same:,}"),
        ("decided differently", f"{tally.different:,}"),
        ("not decided again", f"{undecided:,}"),
        (
            "recorded under the old policy",
            f"{tally.in_force_then:,}, of which it decides {tally.reproduced:,} as it did then",
        ),
    )


def _warnings(tally: Tally, old: Side, new: Side, files: Sequence[Path]) -> Iterable[str]:
    for reason, count in tally.undecided.most_common(_SHOWN * 4):
        where = ", ".join(_place(files, *each) for each in tally.undecided_at.get(reason, ())) or "no place"
        hint = "; name the files before and after these, too" if reason == UNKNOWN_VALUES else ""
        yield f"{count:,} not decided: {reason} ({where}){hint}"
    if len(tally.undecided) > _SHOWN * 4:
        yield f"and {len(tally.undecided) - _SHOWN * 4} further reasons why lines were not decided"
    if tally.absent:
        yield (
            f"{tally.absent:,} events between these are not in the files: lost, left out by journal.min_action, or in "
            "other files"
        )
    if changed := tally.in_force_then - tally.reproduced:
        examples = "; ".join(
            f"{_place(files, each.file, each.line)} {each.process}: {each.old} then, {each.new} now"
            for each in tally.not_reproduced
        )
        yield f"{changed:,} of the decisions under the old policy are not what it decides now: {examples}"
    for error, count in tally.errors.most_common(_SHOWN):
        yield f"{count:,} times {error}"
    for side, policy in ((OLD, old), (NEW, new)):
        impure = sorted(each.name.removeprefix("data.") for each in policy.packages if not each.pure)
        if impure:
            yield f"{SIDES[side]} asks for more than the event, such as the time, in {', '.join(impure)}"


def _outcomes(tally: Tally) -> Table:
    rows = ((old, new, f"{count:,}") for (old, new), count in tally.outcomes.most_common())
    return Table("What would be done", ("old decision", "new decision", "events"), tuple(rows))


def _changed(rows: Iterable[tuple[str, ...]]) -> Table:
    columns = ("rule", "severity", "change", "events", "programs", "hosts", "days")
    return Table("By rule", columns, tuple(rows))


def _examples(findings: Iterable[ReviewFinding]) -> Table:
    rows = ((each.rule, example) for each in findings for example in each.details[3:])
    return Table("Examples", ("rule", "event"), tuple(rows))


def _top(counter: Counter[str]) -> dict[str, Json]:
    return dict[str, Json](_sorted(counter)[:_MOST])


def _sorted(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda each: (-each[1], each[0]))


def _most(counter: Counter[str]) -> str:
    first = _sorted(counter)[:_SHOWN]
    more = [f"{len(counter) - _SHOWN} more"] if len(counter) > _SHOWN else []
    return ", ".join([*(f"{name} {count:,}" for name, count in first), *more])


def _days(counter: Counter[str]) -> str:
    return (
        ", ".join(f"{day} {count:,}" for day, count in sorted(counter.items()))
        if len(counter) <= _SHOWN
        else (f"{min(counter)} to {max(counter)}: {len(counter)} days")
    )


def _place(files: Sequence[Path], file: int, line: int) -> str:
    return f"{os.fspath(files[file])}:{line}"
