"""What `krie policy explain` says of each rule: where it is decided, why, and what an attacker's first attempt gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..decision import Action, Mode, Scope
from ..plugin.probe import Sensor
from ..policy.engine import Rule
from .ability import Ways, needed
from .placement import Placement, Tiers


@dataclass(frozen=True, slots=True)
class Explained:
    """One rule for events of one kind."""

    placement: Placement
    classes: Mapping[str, int]
    """Into how many classes the rule's fields fall, in the table of their kind."""
    rows: int
    """Rows of the kind's table in which the rule fires."""
    of_rows: int
    honours: tuple[str, ...]
    """Alternatives of the kind's probes that can carry the rule out in the kernel."""
    lacks: tuple[str, ...]
    """Those that cannot."""
    mode: Mode

    @property
    def first_attempt(self) -> str:
        """What the first operation for which the rule fires gets."""
        if self.placement.rule.fired.action < Action.OVERRIDE:
            return "goes through; the journal tells"
        if self.mode is Mode.OBSERVE:
            return f"goes through, as the plugin observes; enforced, it {self._enforced()}"
        return self._enforced()

    def _enforced(self) -> str:
        rule, kernel = self.placement.rule, not self.placement.why
        action, scope = rule.fired.action, rule.fired.scope
        poisoned = " The process is poisoned." if scope is Scope.PROCESS or (kernel and action is Action.KILL) else ""
        if action is Action.KILL:
            when = "killed in the same run, refused where the program can refuse" if kernel else "killed a moment later"
            return ("is " if kernel else "goes through; the process is ") + f"{when}.{poisoned}"
        if kernel:
            return f"is refused with error {rule.fired.errno}.{poisoned}"
        if scope is Scope.EVENT and not self.honours:
            return "goes through, and so do those after it: no attached probe can refuse"
        later = "all guarded operations" if scope is not Scope.EVENT else "further ones of its kind by this process"
        return f"goes through; {later} are refused.{poisoned}"

    def to_json(self) -> dict[str, Any]:
        """For `krie policy explain --json`."""
        placement, rule = self.placement, self.placement.rule
        return {
            "id": rule.id,
            "place": rule.place,
            "title": rule.metadata.title,
            "severity": rule.metadata.severity,
            "technique": rule.metadata.technique,
            "description": rule.metadata.description,
            "seen": rule.metadata.seen,
            "kind": placement.kind,
            "action": rule.action,
            "tier": placement.tier,
            "why": placement.why,
            "fields": sorted(map(str, placement.uses)),
            "classes": dict(self.classes),
            "rows": self.rows,
            "of_rows": self.of_rows,
            "honours": list(self.honours),
            "lacks": list(self.lacks),
            "mode": str(self.mode),
            "first_attempt": self.first_attempt,
        }


def explain(tiers: Tiers, ways: Ways, rules: Sequence[Rule], modes: Mapping[str, Mode]) -> list[Explained]:
    """All rules that events of a program's kind concern, and those of the agent's own kinds; `modes` by kind."""
    found = []
    for placement in tiers.placements:
        rule, kind = placement.rule, placement.kind
        table = tiers.tables.get(kind)
        columns = {column.field: len(column.cells) for column in table.columns} if table is not None else {}
        able = [
            (name, needed(rule) in each.can)
            for alternatives in ways.get(kind, {}).values()
            for each in alternatives
            for name in (each.name,)
        ]
        acts = rule.fired.action >= Action.OVERRIDE
        found.append(
            Explained(
                placement,
                {str(field): columns[field] for field in placement.uses if field in columns and not placement.why},
                sum(rule in fired for fired in table.rows.values()) if table is not None else 0,
                prod(columns.values()) if table is not None else 0,
                tuple(dict.fromkeys(name for name, can in able if can and acts)),
                tuple(dict.fromkeys(name for name, can in able if not can and acts)),
                modes.get(kind, Mode.OBSERVE),
            )
        )
    placed = {each.placement.rule.id for each in found}
    for rule in rules:
        if rule.id not in placed:
            kinds = ", ".join(sorted(rule.kinds)) or "any kind"
            why = "about the agent's own events, which no program sends"
            found.append(Explained(Placement(rule, kinds, why, {}), {}, 0, 0, (), (), Mode.OBSERVE))
    return found


def modes_by_kind(sensors: Iterable[Sensor], modes: Mapping[str, Mode]) -> dict[str, Mode]:
    """Modes of plugins, by the names of their events."""
    return {event.NAME: modes.get(each.name, Mode.OBSERVE) for each in sensors for event in each.events}
