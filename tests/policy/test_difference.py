"""What differs between two policies: rows are true and complete, and what means the same is alike."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.chosen import Chosen
from krie.review.difference_report import TiersSaid, report_of
from krie.review.near import input_schema, plain
from krie.review.report_text import as_json
from krie.tier.domain import answers

from .differing import compared, comparer, engine, rule, rules
from .sample import KIND
from .subjects import ACTIONS, RULE

NUMBERS = [-(1 << 63), -6, -5, -4, -1, 0, 1, 2, 4, 5, 6, 7, 1 << 32, (1 << 32) - 1, (1 << 63) - 1]
TEXTS = ["kernel/a", "kernel/b", "", "KERNEL/A", "x\\\\y", "\u00e9", "\\xff", "zz"]


def inputs(random: Random, count: int) -> list[dict[str, Any]]:
    """Whole ones, of all values that the conditions could tell apart and some between."""
    base = plain(input_schema(KIND, {}))
    found = []
    for _ in range(count):
        made = json.loads(json.dumps(base))
        made["event"] |= {
            "number": random.choice(NUMBERS),
            "name": random.choice(TEXTS),
            "command": random.choice(["load", "pin", "other"]),
            "known": random.random() < 0.5,
            "flags": [each for each in ("a", "b", "unknown_bits") if random.random() < 0.5],
        }
        made["process"] |= {
            "uid": max(0, random.choice(NUMBERS)) % (1 << 32),
            "gid": max(0, random.choice(NUMBERS)) % (1 << 32),
            "program": random.choice(["", "apt"]),
            "container": random.random() < 0.5,
            "kernel_thread": random.random() < 0.5,
        }
        found.append(made)
    return found


def fired(one: EmbeddedEngine, document: dict[str, Any]) -> set[tuple[Any, ...]]:
    (answer,) = one.evaluate(one.packages, json.dumps(document))
    assert isinstance(answer, tuple)
    return set(answer)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(ACTIONS, RULE), min_size=1, max_size=3),
    st.lists(st.tuples(ACTIONS, RULE), min_size=1, max_size=3),
    st.integers(0, 1 << 30),
)
def test_rows_are_where_the_engine_differs_and_nowhere_else(
    old: list[tuple[str, list[str]]], new: list[tuple[str, list[str]]], seed: int
) -> None:
    engines = engine(rules(old)), engine(rules(new))
    found = comparer(*engines)
    names = [f"R{at}" for at in range(max(len(old), len(new)))]
    got = found.rows(KIND, names)
    assume(not got.left_out)
    tell = [answers(got.uses[column.field]) for column in got.columns]
    for document in inputs(Random(seed), 150):
        cells = []
        for column, told in zip(got.columns, tell, strict=True):
            part, name = column.field.path
            token = told(document[part][name])
            cells.append(next(at for at, cell in enumerate(column.cells) if told(cell.value) == token))
        hit = [row for row in got.rows if all(cell in own for cell, own in zip(cells, row.cells, strict=True))]
        before, after = (fired(each, document) for each in engines)
        assert len(hit) == (before != after), (document, hit)
        if hit:
            said = {name: states for name, *states in hit[0].leaf}
            assert {name for name, states in said.items() if states[0]} == {each[0] for each in before - after}
            assert {name for name, states in said.items() if states[1]} == {each[0] for each in after - before}


@settings(max_examples=40)
@given(st.lists(st.tuples(ACTIONS, RULE), min_size=1, max_size=3), st.lists(st.tuples(ACTIONS, RULE), max_size=3))
def test_each_witness_is_decided_as_it_is_said(
    old: list[tuple[str, list[str]]], new: list[tuple[str, list[str]]]
) -> None:
    engines = engine(rules(old)), engine(rules(new) or "unused := 1")
    for case in comparer(*engines).compare().cases:
        states = []
        for one, decision in zip(engines, (case.old, case.new), strict=True):
            got = fired(one, case.witness) if one.packages else set()
            assert got == set(decision.rules)
            states.append({name: action for name, action, *_ in got})
        for name, (before, after) in case.rules.items():
            assert (str(states[0].get(name, "")), str(states[1].get(name, ""))) == (before, after)
        assert case.old.rules != case.new.rules


SAME = {
    "order": ("input.process.uid == 5\ninput.event.known", "input.event.known\ninput.process.uid == 5"),
    "De Morgan": (
        "not denied",
        'input.event.command == "load"\ninput.process.uid != 5',
        'denied if input.event.command != "load"\n\ndenied if input.process.uid == 5\n\n',
    ),
    "a helper rule": ("wide", "input.process.uid > 9", "wide if input.process.uid > 9\n\n"),
    "a function": ("f(input.process.uid)", "input.process.uid > 9", "f(x) if x > 9\n\n"),
    "bounds": ("input.event.number >= 5\ninput.event.number <= 5", "input.event.number == 5"),
    "a set and an or": (
        'input.event.command in {"load", "pin"}',
        "either",
        'either if input.event.command == "load"\n\neither if input.event.command == "pin"\n\n',
    ),
    "data and constants": ("input.process.uid in data.uids", "input.process.uid in {5, 7}"),
    "a loop and membership": ("some x in data.uids\ninput.process.uid == x", "input.process.uid in data.uids"),
    "every and a comprehension": (
        "every x in data.uids { input.process.uid != x }",
        "count([x | some x in data.uids; input.process.uid == x]) == 0",
    ),
    "every and not": ("every x in data.uids { input.process.uid != x }", "not input.process.uid in data.uids"),
    "an else": ("pick == 1", "input.event.known", "pick := 1 if input.event.known else := 2\n\n"),
    "a default": ("open == false", "not input.event.known", "default open := false\n\nopen if input.event.known\n\n"),
    "flags": ('"a" in input.event.flags', 'some x in input.event.flags\nx == "a"'),
    "count of flags": ("input.event.flags == []", "count(input.event.flags) == 0"),
    "a local variable": ("u := input.process.uid\nu == 5", "input.process.uid == 5"),
    "a reversed comparison": ("5 == input.process.uid", "input.process.uid == 5"),
    "what can never be otherwise": ("input.process.uid >= 0\ninput.event.known", "input.event.known"),
    "an open end": ("input.event.number > 4", "input.event.number >= 5"),
    "all names": (
        'input.event.command in {"load", "pin", "other"}\ninput.event.known',
        "input.event.known",
    ),
    "never": ("input.process.uid == 5\ninput.process.uid == 6", "input.process.uid < 0"),
    "text of a process": ('input.process.exe == "/bin/x"', 'input.process.exe in {"/bin/x"}'),
    "a field that programs do not know": ("input.event.free > 4", "not input.event.free <= 4"),
    "of the parent": ('input.process.parent.comm == "a"', 'input.process.parent.comm in ["a"]'),
}


@pytest.mark.parametrize("name", SAME)
def test_other_words_for_the_same_differ_in_nothing(name: str) -> None:
    first, second, *helpers = SAME[name]
    for old, new in ((first, second), (second, first)):
        found = compared(rule(old, head="".join(helpers)), rule(new, head="".join(helpers)))
        assert found.is_empty
        assert found.exact == ("R",), found.tried


def test_moving_rules_and_comments_differs_in_nothing() -> None:
    first, second = rule("input.event.known", "A"), rule("input.process.uid == 5", "B", "kill")
    found = compared(f"{first}\n{second}", f"# comment\n\n{second}\n\n\n{first}")
    assert found.is_empty


DIFFERENT = {
    "off by one": ("input.event.number < 5", "input.event.number <= 5", ("number == 5",)),
    "one more name": (
        'input.event.command == "load"',
        'input.event.command in {"load", "pin"}',
        ('command == "pin"',),
    ),
    "a condition more": (
        "input.process.uid == 5",
        "input.process.uid == 5\ninput.event.known",
        ("not known", "process.uid == 5"),
    ),
    "a wider range": ("input.process.uid < 10", "input.process.uid < 20", ("process.uid in 10..19",)),
    "another text": (
        'input.event.name == "kernel/a"',
        'input.event.name == "kernel/b"',
        ('name == "kernel/a"', 'name == "kernel/b"'),
    ),
    "the rest": ('input.event.name == "kernel/a"', "input.event.known == true", None),
    "one flag": (
        '"a" in input.event.flags',
        '"a" in input.event.flags\nnot "b" in input.event.flags',
        ("a in flags and b in flags",),
    ),
    "two places": ("input.event.number == 5", "input.event.number in {4, 5, 6}", ("number in 4, 6",)),
    "a signed number": ("input.event.number > 0", "input.event.number > -5", ("number in -4..0",)),
    "a program": ('input.process.program == "apt"', 'input.process.program == ""', None),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_differences_in_few_words(name: str) -> None:
    old, new, when = DIFFERENT[name]
    found = compared(rule(old), rule(new))
    assert found.cases
    assert all(case.exact for case in found.cases)
    if when is not None:
        assert sorted({each for case in found.cases for each in case.when}) == sorted(when)


def test_few_rows_for_many_combinations() -> None:
    names = ", ".join(f'"n{each}"' for each in range(20))
    old = f"input.event.name in {{{names}}}\ninput.process.uid > 100\ninput.event.known"
    found = compared(rule(old), rule(old.replace("> 100", "> 90")))
    (case,) = found.cases
    assert case.when[-1] == "process.uid in 91..100"
    assert case.when[0] == "known"


def test_what_a_rule_asks_for_differs_wherever_it_fires() -> None:
    found = compared(rule("input.event.known"), rule("input.event.known", action="kill"))
    (case,) = found.cases
    assert (case.when, case.rules) == (("known",), {"R": ("override", "kill")})


def test_data_are_part_of_a_policy() -> None:
    text = rule("input.process.uid in data.uids")
    found = compared(text, text, uids=[5, 8])
    assert sorted(each for case in found.cases for each in case.when) == ["process.uid == 7", "process.uid == 8"]


def test_names_and_metadata_are_told() -> None:
    metadata = "# METADATA\n# title: {}\n# custom:\n#   severity: {}\n"
    body = rule("input.event.known", "R")
    found = compared(metadata.format("One", "low") + body, metadata.format("Two", "high") + body)
    assert not found.cases
    assert sorted((each.rule, each.what) for each in found.notes) == [
        ("R", 'METADATA severity: "low" becomes "high"'),
        ("R", 'METADATA title: "One" becomes "Two"'),
    ]
    found = compared(body, rule("input.event.known", "S"))
    assert ([each.what for each in found.notes], found.cases) == (["was called R"], ())
    found = compared(body, rule("input.event.known\ninput.process.uid == 5", "S"))
    assert {(each.rule, each.what) for each in found.notes} == {("R", "is no longer there"), ("S", "is new")}
    assert {name for case in found.cases for name in case.rules} == {"R", "S"}


def test_a_report_says_what_it_does_not_show() -> None:
    numbers = [5 * each for each in range(210)]
    alone = "input.process.uid == {0}\ninput.event.number == {0}"
    rules_of = "\n".join(rule(alone.format(each), f"R{each}") for each in numbers)
    found = compared("unused := 1", rules_of)
    assert len(found.cases) == 210
    one, other = (Chosen(name, PolicySources((), {}, name)) for name in ("old", "new"))
    made = report_of(found, one, other, {}, TiersSaid())
    rows = next(each.rows for each in made.tables if each.title.startswith("Inputs that are decided differently"))
    assert len(rows) == 200
    assert made.warnings[0].startswith("10 further rows")
    assert len(json.loads(as_json(made))["cases"]) == 210


def test_programs_that_nobody_named_are_compared_too() -> None:
    """A host's own krie.toml may name more than that of whoever reviews."""
    found = compared(rule('input.process.program != "foo"'), rule('input.process.program != "bar"'))
    assert sorted(case.when for case in found.cases) == [('process.program == "bar"',), ('process.program == "foo"',)]
    assert found.exact == ("R",)


MASK = 'package system.log\n\nmask contains "/input/process/exe" if {}\n'


@pytest.mark.parametrize(
    ("old", "new", "data", "differs"),
    [
        ([MASK.format("true")], [], {}, True),
        ([MASK.format("true")], [MASK.format("input.x")], {}, True),
        ([MASK.format("input.x")], ["# said so\n" + MASK.format("input.x")], {}, False),
        ([MASK.format("data.limit == 5")], [MASK.format("data.limit == 5")], {"limit": 5}, True),
        (["package system.log\n\ndrop if input.x\n"], ["package system.log\n\ndrop if not input.x\n"], {}, True),
        ([], [], {"limit": 5}, False),
    ],
)
def test_what_decision_logs_mask_is_told(old: list[str], new: list[str], data: dict[str, Any], differs: bool) -> None:
    engines = (
        EmbeddedEngine(
            PolicySources(
                tuple(
                    PolicyFile(f"{at}.rego", text)
                    for at, text in enumerate([f"package krie.s\n\n{rule('true')}", *texts])
                ),
                more,
                "r",
            )
        )
        for texts, more in ((old, {}), (new, data))
    )
    before, after = engines
    found = comparer(before, after).compare()
    assert [each.rule for each in found.notes] == (["data.system.log"] if differs else [])
    assert found.is_empty != differs
