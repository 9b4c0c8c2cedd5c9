"""What differs between two policies: rows are true and complete, and what means the same is alike."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from krie.config import PolicyConfig
from krie.decision import Action
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.apart import compared_apart
from krie.review.cases import Difference
from krie.review.chosen import Chosen
from krie.review.difference import Comparer
from krie.review.difference_report import TiersSaid, name_of, report_of
from krie.review.near import input_schema, plain
from krie.review.report_text import as_json
from krie.review.sides import sides
from krie.tier.domain import answers

from .test_classify import DATA, KIND
from .test_tables import ACTIONS, RULE

HEAD = 'rules contains {{"id": "{}", "action": "{}"}} if {{\n\tinput.event.kind == "sample.seen"\n'
NUMBERS = [-(1 << 63), -6, -5, -4, -1, 0, 1, 2, 4, 5, 6, 7, 1 << 32, (1 << 32) - 1, (1 << 63) - 1]
TEXTS = ["kernel/a", "kernel/b", "", "KERNEL/A", "x\\\\y", "\u00e9", "\\xff", "zz"]


def engine(text: str, data: dict[str, Any] | None = None) -> EmbeddedEngine:
    sources = PolicySources(
        (PolicyFile("sample.rego", f"package krie.sample\n\n{text}\n"),), {**DATA, **(data or {})}, "r"
    )
    return EmbeddedEngine(sources)


def comparer(old: EmbeddedEngine, new: EmbeddedEngine, tries: int = 1000) -> Comparer:
    return Comparer(*sides(old, new, Action.LOG), [KIND], {}, tries)


def compared(old: str, new: str, **data: Any) -> Difference:
    return comparer(engine(old), engine(new, data)).compare()


def rule(body: str, name: str = "R", action: str = "override", head: str = "") -> str:
    lines = "".join(f"\t{line}\n" for line in body.split("\n"))
    return f"{head}{HEAD.format(name, action)}{lines}}}\n"


def rules(each: list[tuple[str, list[str]]]) -> str:
    return "\n".join(rule("\n".join(body), f"R{at}", action) for at, (action, body) in enumerate(each))


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
    assert not isinstance(answer, str)
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


# Other words for the same

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


TRIED = {
    "a prefix": ('startswith(input.event.name, "kernel/a")', 'startswith(input.event.name, "kernel/ab")'),
    "text order": ('input.event.padding < "m"', 'input.event.padding < "n"'),
    "two fields": ("input.process.uid == input.process.gid", "input.process.uid == input.process.euid"),
    "off by one in a sum": ("input.process.uid + 1 > 500", "input.process.uid + 1 > 501"),
    "ancestors": (
        'some each in input.process.ancestors\neach.comm == "sshd"',
        'some each in input.process.ancestors\neach.comm == "sshd"\neach.exe_known',
    ),
    "health": ("input.health.lost > 7", "input.health.lost > 8"),
    "several": (
        'startswith(input.event.name, "kernel/")\ninput.process.uid + 0 == 77\ninput.event.command == "pin"',
        'startswith(input.event.name, "kernel/")\ninput.process.uid + 0 == 78\ninput.event.command == "pin"',
    ),
    "an error": ("input.process.uid + 0 == 5", "input.process.uid + 0 == 5\nto_number(input.event.name) != 3"),
}


@pytest.mark.parametrize("name", TRIED)
def test_what_cannot_be_compared_exactly_is_tried_and_said_so(name: str) -> None:
    old, new = (rule(each) for each in TRIED[name])
    found = compared(old, new)
    assert list(found.tried) == ["R"]
    assert found.tries
    assert found.cases
    assert not any(case.exact for case in found.cases)
    engines = engine(old), engine(new)
    for case in found.cases:
        answers_ = [one.evaluate(one.packages, json.dumps(case.witness))[0] for one in engines]
        assert answers_[0] != answers_[1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("health", '"health": {"lost": 8}'),
        (
            "ancestors",
            '"ancestors": [{"tgid": 0, "start_time": 0, "comm": "sshd", "exe": "", "exe_known": false, "program": "", '
            '"influence": []}]',
        ),
    ],
)
def test_an_input_that_was_found_by_trying_says_what_matters_and_little_else(name: str, told: str) -> None:
    (case,) = compared(*(rule(each) for each in TRIED[name])).cases
    assert told in name_of(case)


def test_what_a_tried_rule_asks_for_is_found_where_it_fires() -> None:
    body = 'startswith(input.event.name, "kernel/a")'
    found = compared(rule(body), rule(body, action="kill"))
    (case,) = found.cases
    assert (case.rules, case.exact) == ({"R": ("override", "kill")}, False)


CHANGED_BELOW = {
    "a default": ('default word := "a"', 'default word := "b"'),
    "an else": ('word := "c" if input.event.known else := "a"', 'word := "c" if input.event.known else := "b"'),
    "a constant": ('word := "a"', 'word := "b"'),
    "a function": ('word := f(1)\n\nf(x) := "a" if x == 1', 'word := f(1)\n\nf(x) := "b" if x == 1'),
    "a name of a loop": ('word := [x | some x, y in {"a": "b"}][0]', 'word := [y | some x, y in {"a": "b"}][0]'),
    "names of every": (
        'word := "a" if every k, v in {"a": 1} { [k, v] == ["a", 1] }',
        'word := "a" if every v, k in {"a": 1} { [k, v] == ["a", 1] }',
    ),
    "behind another": ("word := other\n\nother := `a`", "word := other\n\nother := `b`"),
    "a member": ('word := all.w\n\nall["w"] := "a"', 'word := all.w\n\nall["w"] := "b"'),
    "an import": ("import data.key as k\n\nword := k", "import data.uids as k\n\nword := k"),
}


@pytest.mark.parametrize("name", CHANGED_BELOW)
def test_what_a_rule_refers_to_is_part_of_it(name: str) -> None:
    for body in ("input.event.padding == word", 'word == "a"\nstartswith(input.event.name, "x")'):
        old, new = (f"{each}\n\n{rule(body)}" for each in CHANGED_BELOW[name])
        found = compared(old, new)
        assert found.exact or found.tried


def test_the_same_words_need_not_be_tried() -> None:
    text = rule('startswith(input.event.name, "kernel/a")')
    found = compared(text, text + rule("input.event.known", "S"))
    assert not found.tried
    assert {name for case in found.cases for name in case.rules} == {"S"}


def test_what_has_too_many_cases_is_tried() -> None:
    body = "some x in data.numbers\ninput.process.uid == x\nsome y in data.numbers\ninput.process.gid == y"
    data = {"numbers": [3 * each for each in range(200)]}
    found = comparer(engine(rule(body), data), engine(rule(body), {"numbers": [1]}), 200).compare()
    assert "cases" in found.tried["R"]


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


# Apart


def apart(old: str, new: str, limits: PolicyConfig) -> Difference:
    return compared_apart(comparer(engine(old), engine(new), 200), limits)


def test_a_comparison_apart_says_the_same() -> None:
    old, new = rule("input.process.uid < 10"), rule("input.process.uid < 20")
    assert apart(old, new, PolicyConfig()) == comparer(engine(old), engine(new), 200).compare()


BAD = {
    "never answers": (
        "input.process.uid > 10\nsome a in numbers.range(1, 9000)\nsome b in numbers.range(1, 9000)\na * b == 7.5",
        r"was ended(?: by SIGXCPU)?",
    ),
    "takes all memory": ('input.process.uid > 10\ncount(sprintf("%1000000000d", [1])) > 5', "was ended by SIGABRT"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_policy_that_does_harm_ends_no_more_than_the_comparison(name: str) -> None:
    body, how = BAD[name]
    limits = PolicyConfig(load_s=1, memory_mib=64)
    with pytest.raises(PolicyError, match=rf"the process that did {how} \(at R for events of sample.seen"):
        apart(rule("input.process.uid > 10"), rule(body), limits)


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
