"""A table of the kernel's own rules: `struct krie_table`, which `bpf/table.bpf.c` reads, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .core_maps import FieldTable, Outcome
from .layout import Doc
from .shared import Array, Nested, Shared
from .wire import U32

FIELDS = 20
"""Inline fields of a kind."""
POINTS, STEPS, ROWS, OUTCOMES = 4096, 8192, 4096, 512
"""Break points of all fields, intervals between them, combinations, and different outcomes of these."""
IN_FORCE = 1 << 31
"""Some rule of this kind is decided in the kernel, though it may read no field."""


@dataclass(frozen=True, slots=True)
class Table(Shared):
    """The rules about one kind of event that the kernel decides."""

    C_NAME: ClassVar[str] = "krie_table"
    generation: U32
    used: Annotated[U32, Doc("bits of the inline fields that any rule reads, and `IN_FORCE`; 0: nothing is decided")]
    fields: Annotated[tuple[FieldTable, ...], Nested(FieldTable, FIELDS)]
    points: Annotated[tuple[int, ...], Array("Q", POINTS)]
    steps: Annotated[tuple[int, ...], Array("H", STEPS)]
    rows: Annotated[tuple[int, ...], Array("H", ROWS), Doc("numbers of outcomes; 0: nothing is decided")]
    outcomes: Annotated[tuple[Outcome, ...], Nested(Outcome, OUTCOMES)]


SIZE = Table.size()
"""Bytes of a table."""
EMPTY = bytes(SIZE)
"""A table that decides nothing."""
C_DEFINES = {
    "KRIE_FIELDS": FIELDS,
    "KRIE_POINTS": POINTS,
    "KRIE_STEPS": STEPS,
    "KRIE_ROWS": ROWS,
    "KRIE_OUTCOMES": OUTCOMES,
}
