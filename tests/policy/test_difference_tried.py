"""What cannot be compared exactly is tried, it is said so, and a policy that does harm ends no more than that."""

import json

import pytest
from krie.config import PolicyConfig
from krie.errors import PolicyError
from krie.review.apart import compared_apart
from krie.review.cases import Difference
from krie.review.difference_report import name_of

from .differing import compared, comparer, engine, rule

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
