"""Rules of any conditions, their tables, and bugs that are planted in tables."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from krie.events.identity import Identity
from krie.events.table_layout import Table
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.tier.domain import Numbers
from krie.tier.placement import find_tiers
from krie.tier.subject import Subject

from .sample import KIND

HEAD = 'rules contains {"id": "%s", "action": "%s"} if {\n\tinput.event.kind == "sample.seen"\n'
NUMBERS = st.sampled_from([-(1 << 63), -5, -1, 0, 1, 5, 4294967295, 4294967296, (1 << 63) - 1])
TEXTS = st.sampled_from(["kernel/a", "kernel/b", "", "KERNEL/A", "x\\\\y", "\\u00e9", "\\\\xff"])
FLAGS = st.sampled_from(["a", "b", "unknown_bits", "c"])
ORDERS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
SAME = st.sampled_from(["==", "!="])
CONDITIONS = st.one_of(
    st.builds("input.event.number {} {}".format, ORDERS, NUMBERS),
    st.builds("input.process.uid {} {}".format, ORDERS, NUMBERS),
    st.builds("input.process.gid in {}".format, st.lists(NUMBERS, max_size=4).map(str)),
    st.builds("input.event.number < {}".format, st.sampled_from(["5.5", "-0.5", '"a"', "null", "true"])),
    st.builds('input.event.name {} "{}"'.format, SAME, TEXTS),
    st.builds('"{}" in input.event.flags'.format, FLAGS),
    st.builds("input.event.flags {} {}".format, SAME, st.sampled_from(['["a"]', "[]", '["a", "b"]', '"a"'])),
    st.builds("input.event.flags in {}".format, st.sampled_from(['[["a"], ["b"]]', "[[]]", '["a"]'])),
    st.builds("input.event.known in {}".format, st.sampled_from(["[true]", "[1]", "[false, 0]"])),
    st.builds("count(input.event.flags) {} {}".format, ORDERS, st.integers(0, 3)),
    st.builds('input.event.command {} "{}"'.format, SAME, st.sampled_from(["load", "pin", "other", "none"])),
    st.builds('input.process.program {} "{}"'.format, SAME, st.sampled_from(["apt", "", "other"])),
    st.sampled_from(["input.event.known", "input.process.container", "input.process.kernel_thread"]),
)
RULE = st.lists(st.builds("{}{}".format, st.sampled_from(["", "not "]), CONDITIONS), max_size=3)
ACTIONS = st.sampled_from(["override", "kill"])


def subject(*rules: tuple[str, str, list[str]], data: dict[str, Any] | None = None) -> Subject:
    text = "package krie.sample\n\n" + "".join(
        HEAD % (name, action) + "".join(f"\t{each}\n" for each in body) + "}\n\n" for name, action, body in rules
    )
    engine = EmbeddedEngine(PolicySources((PolicyFile("sample.rego", text),), data or {}, "revision"))
    numbers = Numbers().following({Identity(1, 2, 3): "apt"})
    found = find_tiers(engine, [KIND], numbers, lambda kind, rule: "")
    return Subject(engine, found, numbers, [KIND])


PLANTED = [
    ("EVEN", "override", ["input.event.number >= 10", "input.event.number < 20"]),
    ("NAME", "kill", ['input.event.name in {"kernel/a", "kernel/b"}', "input.process.uid == 5"]),
]


def _changed(made: Subject, change: Callable[[Table], Table]) -> dict[int, bytes]:
    return {KIND.kind: change(Table.decode(made.tables()[KIND.kind])).encode()}


def missing_row(table: Table) -> Table:
    """The row of a rule that fires loses its outcome."""
    at = next(at for at, outcome in enumerate(table.rows) if outcome)
    return replace(table, rows=(*table.rows[:at], 0, *table.rows[at + 1 :]))


def wrong_class(table: Table) -> Table:
    """A break point is off by one."""
    return replace(table, points=(table.points[0] + 1, *table.points[1:]))


def cast_constant(table: Table) -> Table:
    """Numbers are compared as if they had no sign."""
    return replace(table, fields=(replace(table.fields[0], flip=0), *table.fields[1:]))


def stale_generation(table: Table) -> Table:
    """The table is that of another policy."""
    return replace(table, generation=7)
