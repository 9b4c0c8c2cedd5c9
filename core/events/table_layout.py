"""Where things lie in a table of the kernel: `struct krie_table` in `bpf/table.bpf.c`, which asserts that it agrees."""

from __future__ import annotations

import struct

from .core_maps import FieldTable, Outcome

FIELDS = 20
"""Inline fields of a kind."""
POINTS, STEPS, ROWS, OUTCOMES = 4096, 8192, 4096, 512
"""Break points of all fields, intervals between them, combinations, and different outcomes of these."""
HEAD = struct.Struct("=II")
"""Generation; bits of the fields that are used, and `IN_FORCE`."""
IN_FORCE = 1 << 31
"""Some rule of this kind is decided in the kernel, though it may read no field."""
POINTS_AT = HEAD.size + FIELDS * FieldTable.size()
STEPS_AT = POINTS_AT + 8 * POINTS
ROWS_AT = STEPS_AT + 2 * STEPS
OUTCOMES_AT = ROWS_AT + 2 * ROWS
SIZE = OUTCOMES_AT + OUTCOMES * Outcome.size()
"""Bytes of a table."""
EMPTY = bytes(SIZE)
"""A table that decides nothing."""
C_DEFINES = {
    "KRIE_FIELDS": FIELDS,
    "KRIE_POINTS": POINTS,
    "KRIE_STEPS": STEPS,
    "KRIE_ROWS": ROWS,
    "KRIE_OUTCOMES": OUTCOMES,
    "KRIE_TABLE_BYTES": SIZE,
}
