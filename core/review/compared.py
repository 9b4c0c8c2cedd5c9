"""Recorded events decided by two policies, and what of the answers differs: see `krie.review.replay`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..decision import Action, Decision, FiredRule, Scope
from ..events.given import Values
from ..policy.policy import ON_ERROR, Policy
from .journal_reader import Piece
from .recorded import Needs, Recorded, Unreadable, day_of, host_of, label, program_of, recorded

EXAMPLES = 3
"""Of each change."""
OLD, NEW = 1, 2
"""Whose turn it is to decide."""
SIDES = {OLD: "the old policy", NEW: "the new policy"}
UNKNOWN_VALUES = "the lines that tell health or ancestors are not in these files"
_UNTOLD = "the lines do not tell what rules read"
_OTHERS = "(others)"
_MOST_KEYS, _MOST_REASONS = 50_000, 200  # names and reasons come out of the journal: whoever made it chose them
Place = tuple[int, int]
"""File by its number, and line."""


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """One event that is decided differently."""

    file: int
    line: int
    time: str
    process: str
    old: str
    new: str


@dataclass(slots=True)
class Tally:
    """What came of some lines; those of others can be added."""

    lines: int = 0
    same: int = 0
    different: int = 0
    changes: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    """Lines by rule, what changes about it, program, host and day."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Lines by what both policies decide, where that differs."""
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)
    """By rule and change."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Lines that were not decided, by the reason."""
    undecided_at: dict[str, list[Place]] = field(default_factory=dict)
    waiting: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Lines whose values are not known yet."""
    in_force_then: int = 0
    """Lines that were recorded while the old policy was in force."""
    reproduced: int = 0
    """Of these, those that it decides as it did then."""
    not_reproduced: list[Example] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """Decisions that a policy could not make in part, by the message."""
    first_seq: int = 0
    last_seq: int = 0
    absent: int = 0
    """Events between those of the lines: they were judged, and are not in these files."""

    def add(self, other: Tally) -> None:
        """Add what came of the lines that follow."""
        self.lines += other.lines
        self.same += other.same
        self.different += other.different
        self.outcomes.update(other.outcomes)
        for (rule, change, *by), count in other.changes.items():
            program, host, day = by if len(self.changes) < _MOST_KEYS else (_OTHERS,) * 3
            self.changes[rule, change, program, host, day] += count
        for mine, more in ((self.undecided, other.undecided), (self.errors, other.errors)):
            for reason, count in more.items():
                mine[reason if reason in mine or len(mine) < _MOST_REASONS else _OTHERS] += count
        for key, examples in other.examples.items():
            self.examples[key] = sorted([*self.examples.get(key, ()), *examples])[:EXAMPLES]
        for reason, places in other.undecided_at.items():
            reason = reason if reason in self.undecided else _OTHERS  # noqa: PLW2901
            self.undecided_at[reason] = sorted([*self.undecided_at.get(reason, ()), *places])[:EXAMPLES]
        self.in_force_then += other.in_force_then
        self.reproduced += other.reproduced
        self.not_reproduced = sorted([*self.not_reproduced, *other.not_reproduced])[:EXAMPLES]
        if other.first_seq:
            self.absent += other.absent
            if self.last_seq and other.first_seq > self.last_seq:
                self.absent += other.first_seq - self.last_seq - 1
            self.first_seq = self.first_seq or other.first_seq
            self.last_seq = other.last_seq

    def left_out(self, reason: str, file: int, line: int) -> None:
        """Note a line that was not decided."""
        self.undecided[reason] += 1
        places = self.undecided_at.setdefault(reason, [])
        if len(places) < EXAMPLES:
            places.append((file, line))

    def number(self, seq: object) -> None:
        """Note the number of an event."""
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq < 1 << 63:
            return
        if self.last_seq and seq > self.last_seq:
            self.absent += seq - self.last_seq - 1
        self.first_seq = self.first_seq or seq
        self.last_seq = seq


class Comparison:
    """Decides lines by two policies."""

    def __init__(self, old: Policy, new: Policy, needs: Needs, mark: Callable[[int, int], object]) -> None:
        """`mark` is told, before a policy decides, which line of the piece it is and whose turn: 0, `OLD`, `NEW`."""
        self._old, self._new, self._needs, self._mark = old, new, needs, mark
        self._values = Values()
        self._at = 0
        self._changes: dict[tuple[tuple[FiredRule, ...], tuple[FiredRule, ...]], tuple[tuple[str, str], ...]] = {}

    def learn(self, values: Iterable[tuple[str, str]]) -> None:
        """Values that other lines told."""
        self._values.take(values)

    def lines(self, piece: Piece, failed: dict[int, str]) -> Tally:
        """Decide all lines of a piece. `failed`: lines of which it is known that they cannot be decided, and why."""
        tally = Tally()
        for number, text in enumerate(piece.text.split(b"\n"), piece.line):
            if not text or text.isspace():
                continue
            tally.lines += 1
            self.line(tally, number, (piece.file, number), text, failed.get(number, ""))
        return tally

    def line(self, tally: Tally, at: int, place: Place, text: bytes, failed: str, *, last: bool = False) -> None:
        """Decide one. `at`: how `mark` calls it; `last`: no further values will come."""
        self._at = at
        self._mark(at, 0)
        file, number = place
        try:
            line = recorded(text, self._values)
        except Unreadable as error:
            tally.left_out(f"no line of a journal: {error.what}", file, number)
            return
        if not last:
            tally.number(line.line.get("seq"))
        if failed:
            tally.left_out(failed, file, number)
            return
        try:
            lacking = self._needs.lacks(line.kind, line.document)
        except Unreadable as error:
            tally.left_out(f"{label(line.kind)}: {error}", file, number)
            return
        if lacking:
            if lacking == ("kind",):
                tally.left_out(f"{label(line.kind)} is not an event of the configured plugins", file, number)
            elif set(lacking) <= set(line.missing) - {"host"} and not line.old:
                if last:
                    tally.left_out(UNKNOWN_VALUES, file, number)
                else:
                    tally.waiting.append((file, number, text))
            else:
                tally.left_out(f"{_UNTOLD}: {', '.join(lacking)}", file, number)
            return
        self._compare(tally, file, number, line)

    def _compare(self, tally: Tally, file: int, number: int, line: Recorded) -> None:
        self._mark(self._at, OLD)
        old = self._old.decide(line.kind, line.document)
        self._mark(self._at, NEW)
        # Decided once where it is one policy: what asks for the time would answer otherwise the second time.
        new = self._new.decide(line.kind, line.document) if self._new is not self._old else old
        self._mark(self._at, 0)
        for side, decision in ((OLD, old), (NEW, new)):
            if decision.error:
                tally.errors[f"{SIDES[side]}: {label(decision.error)}"] += 1
        if line.decision.get("revision") == old.revision:
            tally.in_force_then += 1
            if _as_recorded(old, line.decision):
                tally.reproduced += 1
            elif len(tally.not_reproduced) < EXAMPLES:
                then, now = recorded_apart(line.decision, old)
                tally.not_reproduced.append(_example(file, number, line, then, now))
        if old[:5] == new[:5]:
            tally.same += 1
            return
        tally.different += 1
        if old[:4] != new[:4]:
            tally.outcomes[outcome(old), outcome(new)] += 1
        program, host, day = program_of(line.document["process"]), host_of(line), day_of(line)
        for rule, change in self._changed(old.rules, new.rules):
            tally.changes[rule, change, program, host, day] += 1
            examples = tally.examples.setdefault((rule, change), [])
            if len(examples) < EXAMPLES:
                examples.append(_example(file, number, line, shown(old), shown(new)))

    def _changed(self, old: tuple[FiredRule, ...], new: tuple[FiredRule, ...]) -> tuple[tuple[str, str], ...]:
        if (old, new) not in self._changes:
            self._changes[old, new] = tuple(changes(old, new))
        return self._changes[old, new]


def changes(old: Iterable[FiredRule], new: Iterable[FiredRule]) -> Iterator[tuple[str, str]]:
    """Rules of which the answers differ, and how. A rule may fire with several verdicts at once."""
    before, after = (_by_id(rules) for rules in (old, new))
    for rule in sorted(before.keys() | after.keys()):
        if rule not in after:
            yield rule, "no longer fires"
        elif rule not in before:
            yield rule, "fires"
        elif before[rule] != after[rule]:
            yield rule, f"{' and '.join(before[rule])} becomes {' and '.join(after[rule])}"


def _by_id(rules: Iterable[FiredRule]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in sorted(set(rules)):
        found.setdefault(each.id, []).append(asked(each))
    return found


def asked(rule: FiredRule) -> str:
    """What a rule asks for, in words."""
    return _words(rule.action, rule.scope, rule.errno, rule.ttl_s)


def outcome(decision: Decision) -> str:
    """What all rules together ask for, in words."""
    return _words(decision.action, decision.scope, decision.errno, decision.ttl_s)


def _words(action: Action, scope: Scope, errno: int, ttl_s: int) -> str:
    """Other words for each other verdict."""
    usual = 1 if action is Action.OVERRIDE else 0
    words = [f"{action} (errno {errno})" if errno != usual else str(action)]
    if scope is not Scope.EVENT or ttl_s:
        words.append(f"{scope} for {ttl_s} s")
    return ", ".join(words)


def shown(decision: Decision) -> str:
    """A decision with its rules, in words."""
    rules = ", ".join(each.id for each in decision.rules if each.id != ON_ERROR) or "no rule"
    return f"{outcome(decision)}: {rules}" + (f" ({decision.error})" if decision.error else "")


def _verdict(decision: dict[str, Any]) -> dict[str, str]:
    """What a decision binds whom to, as a line of the journal has it: each part as JSON."""
    return {name: _json(decision.get(name)) for name in ("action", "scope", "errno", "ttl_s")}


def _rules(decision: dict[str, Any]) -> Counter[str]:
    """The rules that fired, each with its action."""
    rules = decision.get("rules")
    if not isinstance(rules, list):
        return Counter([f"rules {_json(rules)}"])
    return Counter(
        f"{each.get('id')} {each.get('action')}" if isinstance(each, dict) else _json(each) for each in rules
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_recorded(decision: Decision, then: dict[str, Any]) -> bool:
    now = decision.to_json()
    return _verdict(then) == _verdict(now) and _rules(then) == _rules(now)


def recorded_apart(then: dict[str, Any], now: Decision) -> tuple[str, str]:
    """A recorded decision and another one, in words that show each part in which they differ."""
    told = now.to_json()
    before, after = _verdict(then), _verdict(told)
    apart = [name for name in before if before[name] != after[name] and name != "action"]
    fired, fires = _rules(then), _rules(told)
    texts = []
    for verdict, rules, others in ((before, fired, fires), (after, fires, fired)):
        words = ", ".join([verdict["action"].strip('"'), *(f"{name} {verdict[name]}" for name in apart)])
        texts.append(f"{words}: {', '.join(sorted(rules - others if fired != fires else rules)) or 'no rule'}")
    return texts[0], texts[1]


def _example(file: int, number: int, line: Recorded, old: str, new: str) -> Example:
    process = line.document["process"]
    who = f"{program_of(process)} ({label(process.get('comm'))}, tgid {label(str(process.get('tgid')))})"
    return Example(file, number, label(line.line.get("time")), who, label(old), label(new))
