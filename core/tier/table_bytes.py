"""Writes tables as the kernel reads them, and looks up in one as `bpf/table.bpf.c` does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from ..decision import Action, FiredRule
from ..errors import PolicyError
from ..events import table_layout as layout
from ..events.core_maps import FieldTable, Outcome
from ..events.event import CONTAINER, INFLUENCED, KERNEL_THREAD, Event, EventType
from ..events.identity import Identity
from ..events.inline import NamePath, inline_fields, shape_of
from ..policy.engine import Rule
from .domain import Numbers
from .tables import KindTable

_FEW = 31
_EPERM = 1


@dataclass(frozen=True, slots=True)
class Encoder:
    """Writes tables. `number` gives rules their numbers; `poison_ns`: how long a killed process stays poisoned."""

    generation: int
    number: Callable[[str], int]
    poison_ns: int

    def encode(self, table: KindTable, only_refuse: frozenset[str] = frozenset()) -> bytes:
        """One table; those rules neither kill nor poison. Raises `PolicyError` where it does not fit."""
        used, fields = 0, [FieldTable.decode(None)] * layout.FIELDS
        points: list[int] = []
        steps: list[int] = []
        for column in table.columns:
            used |= 1 << column.field.index
            own_points, own_steps = column.intervals()
            half = 0 if not own_points else 16 if len(own_points) <= _FEW else layout.POINTS
            last = len(own_steps) - 1  # as many as points where there are any
            coding = column.coding
            fields[column.field.index] = FieldTable(
                coding.flip, coding.mask, coding.rest, len(points), last, len(steps), half
            )
            points += own_points
            steps += own_steps
        rows, outcomes = self._rows(table, only_refuse)
        used = used | layout.IN_FORCE if any(rows) else 0
        return layout.Table(
            self.generation, used, tuple(fields), tuple(points), tuple(steps), tuple(rows), tuple(outcomes)
        ).encode()

    def _rows(self, table: KindTable, only_refuse: frozenset[str]) -> tuple[list[int], list[Outcome]]:
        rows, outcomes = [0] * layout.ROWS, [Outcome.decode(None)]
        known: dict[Outcome, int] = {}
        for row, (rule, asked) in table.outcomes(only_refuse):
            outcome = self._outcome(rule, asked)
            if outcome not in known:
                known[outcome] = len(outcomes)
                outcomes.append(outcome)
            rows[row] = known[outcome]
        if len(outcomes) > layout.OUTCOMES:
            raise PolicyError(f"the rules of {table.kind} have more than {layout.OUTCOMES} different outcomes")
        return rows, outcomes

    def _outcome(self, rule: Rule, asked: FiredRule) -> Outcome:
        kills = asked.action is Action.KILL
        poison_ns = asked.ttl_s * 1_000_000_000 or (self.poison_ns if kills else 0)
        return Outcome(poison_ns, self.number(rule.id), asked.errno or _EPERM, kills)


def look_up(table: layout.Table, event_type: EventType, raw: bytes, numbers: Numbers) -> tuple[int, int]:
    """Number of the rule and of the generation that a program in the kernel finds for the record with these bytes."""
    if not table.used:
        return 0, table.generation
    row = 0
    for field in inline_fields(event_type).values():
        if not table.used >> field.index & 1:
            continue
        value = _number(event_type, raw, field.path, numbers)
        coded = table.fields[field.index]
        if shape_of(field.wire) == "number":
            value ^= coded.flip
            value = (value & coded.mask) | ((1 << 63) if value & coded.rest else 0)
            interval = bisect_right(table.points[coded.first_point : coded.first_point + coded.points], value)
        else:
            interval = min(value, coded.points)
        row += table.steps[coded.first_step + interval]
    return table.outcomes[table.rows[row]].rule, table.generation


def _number(event_type: EventType, raw: bytes, path: NamePath, numbers: Numbers) -> int:
    """A field's 64 bits, read from the record's bytes as a program has them."""
    part, name = path
    if part == "process" and name not in Event.__dataclass_fields__:
        header = event_type.layout.raw(raw)
        if name == "program":
            identity = Identity(header["exe_dev"], header["exe_ino"], header["exe_generation"])
            return 0 if int(header["context"]) & INFLUENCED else numbers.files.get(identity, 0)
        return int(header["context"]) & {"kernel_thread": KERNEL_THREAD, "container": CONTAINER}[name]
    value = event_type.layout.raw(raw)[name]
    if isinstance(value, bytes):
        return numbers.names.get(value.partition(b"\0")[0], 0)
    return int(value) & ((1 << 64) - 1)
