"""Tables say what the engine says: any policy of a family, every record, by the bytes that the kernel reads."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from krie import Choice, Event, Inline, Pad4
from krie.errors import PolicyError
from krie.events.event import EventType
from krie.events.identity import Identity
from krie.events.table_layout import Table
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.testing.events import build, encode
from krie.tier.domain import Numbers
from krie.tier.placement import find_tiers
from krie.tier.subject import Subject
from krie.tier.verify import python_look_up, verify

from .sample import KIND, tiers
from .subjects import (
    ACTIONS,
    HEAD,
    PLANTED,
    RULE,
    _changed,
    cast_constant,
    missing_row,
    stale_generation,
    subject,
    wrong_class,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(ACTIONS, RULE), min_size=1, max_size=4))
def test_tables_equal_the_engine(rules: list[tuple[str, list[str]]]) -> None:
    made = subject(*((f"R{number}", action, body) for number, (action, body) in enumerate(rules)))
    assert all(each.tier == "kernel" for each in made.tiers.placements), made.tiers.placements
    found = verify(made, {"the table": python_look_up(made, made.tables())}, events=200)
    assert not found.disagreements, found.disagreements[0].as_rego(frozenset())


@pytest.mark.parametrize("change", [missing_row, wrong_class, cast_constant, stale_generation])
def test_a_planted_bug_is_found_and_shrunk(change: Callable[[Table], Table]) -> None:
    made = subject(*PLANTED)
    (found,) = verify(made, {"it": python_look_up(made, _changed(made, change))}, events=3000).disagreements
    assert found.kind == "sample.seen"
    assert "test_disagreement if {" in found.as_rego(frozenset({"EVEN"}))


def test_a_correct_table_has_no_disagreement_and_every_rule_fires() -> None:
    made = subject(*PLANTED)
    found = verify(made, {"it": python_look_up(made, made.tables())}, events=1000)
    assert not found.disagreements
    assert found.decided["sample.seen"] > 50


def test_a_thousand_members_of_a_set_are_one_class() -> None:
    made = tiers(
        'rules contains {"id": "R", "action": "kill"} if input.process.uid in data.many',
        {"many": [7 * number for number in range(1000)]},
    )
    table = made.tables["sample.seen"]
    assert [len(column.cells) for column in table.columns] == [2]
    assert table.evaluations == 2


def test_too_many_evaluations_stay_with_user_space() -> None:
    text = 'rules contains {"id": "%s", "action": "kill"} if {\n\t%s\n}\n\n'
    wide = "some x in data.many\n\tx == input.process.uid\n\tsome y in data.many\n\ty == input.process.gid"
    found = tiers(text % ("WIDE", wide) + text % ("SMALL", "input.process.uid == 5"), {"many": list(range(100))})
    why = {each.rule.id: each.why for each in found.placements}
    assert why["SMALL"] == ""
    assert "needs 10201 evaluations" in why["WIDE"]


def test_too_many_constants_stay_with_user_space() -> None:
    text = 'rules contains {"id": "R", "action": "kill"} if input.process.uid in data.many'
    (found,) = tiers(text, {"many": [7 * number for number in range(2100)]}).placements
    assert "4200 of 4095 break points" in found.why


def test_an_error_costs_only_its_rule() -> None:
    text = 'rules contains {"id": "BAD", "action": "kill"} if to_number(input.event.command) == 1\n\n'
    found = tiers(text + 'rules contains {"id": "GOOD", "action": "kill"} if input.process.uid == 5')
    why = {each.rule.id: each.why for each in found.placements}
    assert why["GOOD"] == ""
    assert "cannot be evaluated" in why["BAD"]


def test_text_that_fills_its_field_is_refused() -> None:
    (found,) = tiers('rules contains {"id": "R", "action": "kill"} if input.event.name == "%s"' % ("a" * 15)).placements
    assert "fills the field's 16 bytes" in found.why


def test_what_must_be_inline_and_cannot_be_is_refused() -> None:
    text = '# METADATA\n# custom: {enforce: inline}\nrules contains {"id": "R", "action": "kill"} if '
    with pytest.raises(
        PolicyError, match=r"sample.rego:5: rule R demands `enforce: inline`, and .*is not an inline field"
    ):
        tiers(text + "input.event.free == 5")


def test_two_rules_with_one_id_are_refused() -> None:
    rule = 'rules contains {"id": "R", "action": "kill"} if input.process.uid == 5\n'
    with pytest.raises(PolicyError, match=r"sample.rego:4: rule R exists already at sample.rego:3"):
        tiers(rule + rule)


def test_numbers_last_from_one_policy_to_the_next() -> None:
    first = Numbers().following({Identity(1, 1, 1): "a", Identity(2, 2, 2): "b"})
    first.name(b"kernel/a")
    second = first.following({Identity(2, 2, 2): "renamed", Identity(3, 3, 3): "c"})
    assert second.files[Identity(2, 2, 2)] == first.files[Identity(2, 2, 2)]
    assert second.files[Identity(3, 3, 3)] not in first.files.values()
    assert second.name(b"kernel/a") == first.names[b"kernel/a"]
    assert second.name(b"kernel/b") != first.names[b"kernel/a"]


def test_look_ups_know_the_rule_and_the_generation() -> None:
    made = subject(("R", "override", ["input.process.uid == 5"]))
    look_up: Mapping[int, bytes] = made.tables()
    raw = bytearray(KIND.layout.size)
    place = next(each for each in KIND.layout.fields if each.name == "uid")
    struct.pack_into("=I", raw, place.offset, 5)
    assert python_look_up(made, look_up)(KIND, bytes(raw)) == (made.number("R"), 1)


@dataclass(frozen=True, slots=True)
class Wide(Event):
    """An event with a choice of numbers that are too large to be intervals of their own."""

    KIND = 0x900A
    NAME = "sample.wide"

    reason: Annotated[str, Choice("I", {0: "none", 300: "first", 302: "second", 70_000: "far"}), Inline()]
    pad: Pad4 = b""


def test_numbers_between_those_that_have_a_name_have_none() -> None:
    head = HEAD.replace("sample.seen", "sample.wide") % ("R", "kill")
    text = "package krie.sample\n\n" + head + '\tinput.event.reason in {"first", "far"}\n}\n'
    engine = EmbeddedEngine(PolicySources((PolicyFile("a.rego", text),), {}, "r"))
    kind, numbers = EventType(Wide), Numbers()
    made = Subject(engine, find_tiers(engine, [kind], numbers, lambda kind, rule: ""), numbers, [kind])
    look_up = python_look_up(made, made.tables())
    raw = bytearray(encode(build(Wide)))
    place = next(each for each in kind.layout.fields if each.name == "reason")
    found = {}
    for number in (0, 1, 299, 300, 301, 302, 303, 69_999, 70_000, 70_001, 0xFFFFFFFF):
        struct.pack_into("=I", raw, place.offset, number)
        found[number] = look_up(kind, bytes(raw))[0]
    assert {number for number, rule in found.items() if rule} == {300, 70_000}
    verified = verify(made, {"the table": look_up}, events=500)
    assert not verified.disagreements
    assert verified.decided["sample.wide"] > 50


def test_texts_that_no_table_compares_with_are_forgotten() -> None:
    numbers = Numbers()
    for known in (b"kernel/old", b"kernel/a"):
        numbers.name(known)
    text = "package krie.sample\n\n" + HEAD % ("R", "kill") + '\tinput.event.name in {"kernel/a", "kernel/b"}\n}\n'
    engine = EmbeddedEngine(PolicySources((PolicyFile("a.rego", text),), {}, "r"))
    find_tiers(engine, [KIND], numbers, lambda kind, rule: "")
    assert numbers.names == {b"kernel/a": 2, b"kernel/b": 3}
