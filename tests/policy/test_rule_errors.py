"""A rule that cannot be evaluated costs itself alone, whoever chose the text at which it fails."""

import pytest
from krie.decision import Action
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import ON_ERROR, Policy
from krie.policy.sources import PolicyFile, PolicySources

from .test_policy import document, policy, rule


def test_an_error_costs_only_its_own_rule_and_adds_the_reaction() -> None:
    broken = rule("a", "A", 'input.event.kind == "x.y"\nto_number(input.event.text) > 1')
    deciding = policy(broken, rule("b", "B", 'input.event.kind == "x.y"', "kill"))
    decided = deciding.decide("x.y", document("x.y", text="abc"))
    assert (decided.action, {each.id for each in decided.rules}) == (Action.KILL, {"B", ON_ERROR})
    assert decided.error.startswith("data.krie.a: rule A: p0.rego:4:22: ")
    assert deciding.errors == {"data.krie.a": 1}


_ERRORS = {
    "a function": ("to_number(trim_space(input.event.text)) > 5", ""),
    "a division": ("10 / input.event.number > 5", ""),
    "two values": ("f(input.event.text) == 1", 'f(x) := 1 if contains(x, "a")\nf(x) := 2 if contains(x, "b")\n'),
    "a pattern": ('regex.match("(", input.event.text)', ""),
    "a unit": ("units.parse(input.event.text) == 1", ""),
    "below with": ('h with input.event.text as "xyz" with count as g', "h if to_number(input.event.text)\ng(_) := 9\n"),
    "in a comprehension": ("count([1 | to_number(input.event.text)]) == 1", ""),
    "in every": ("every x in [input.event.text] { to_number(x) > 1 }", ""),
}


@pytest.mark.parametrize("name", _ERRORS)
def test_whoever_chooses_a_text_switches_no_other_rule_off(name: str) -> None:
    body, more = _ERRORS[name]
    kill = 'input.event.kind == "x.y"\ncount(input.event.text) == 3'
    texts = [
        rule("a", "A", f'input.event.kind == "x.y"\n{body}') + more + _rule("B", kill, "kill"),
        rule("a", "A", 'input.event.kind == "x.y"\nfalse')
        + _rule("B", kill, "kill").replace("rules", f"{_rule('C', f'input.event.text{chr(10)}{body}')}rules", 1)
        + more,
    ]
    for text, culprit in zip(texts, "AC", strict=True):
        deciding = policy(text)
        for _ in range(2):  # what an error left behind in the engine does not count
            decided = deciding.decide("x.y", document("x.y", text="abc", number=0))
            assert {each.id for each in decided.rules} == {"B", ON_ERROR}
            assert decided.error.startswith(f"data.krie.a: rule {culprit}: p0.rego:")
        assert deciding.decide("x.y", document("x.y", text="1234", number=0)).action < Action.KILL


def _rule(id_: str, condition: str, action: str = "log") -> str:
    return rule("a", id_, condition, action).partition("\n")[2]


def test_what_refers_to_all_rules_is_decided_one_by_one_too() -> None:
    broken = rule("a", "A", 'input.event.kind == "x.y"\nto_number(input.event.text) > 1')
    counting = _rule("B", 'input.event.kind == "x.y"\ncount(data.krie.c.rules) == 1', "kill")
    other = rule("c", "C", 'input.event.kind == "x.y"') + "all_of_them := rules\n"
    decided = policy(broken + counting, other).decide("x.y", document("x.y", text="abc"))
    assert {each.id for each in decided.rules} == {"B", "C", ON_ERROR}


@pytest.mark.parametrize("more", ["each := 5", "each(x) := x + 1", "import data.krie.lib.each"])
def test_any_name_may_be_in_use(more: str) -> None:
    """The rules one by one are made of the policy's text, and some more."""
    head, body = rule("a", "A", 'input.event.kind == "x.y"\nto_number(input.event.text) > 1').split("\n", 1)
    text = f"{head}\n{more}\n{body}" + _rule("B", 'input.event.kind == "x.y"')
    lib = "package krie.lib\neach := 1\n"
    decided = policy(text, lib).decide("x.y", document("x.y", text="abc"))
    assert {each.id for each in decided.rules} == {"B", ON_ERROR}


def test_a_rule_of_another_kind_that_fails_costs_nothing_and_is_told() -> None:
    broken = rule("a", "A", 'to_number(input.event.text) > 1\ninput.event.kind == "x.z"')
    deciding = policy(broken + _rule("B", 'input.event.kind == "x.y"\ninput.event.text == "abc"', "kill"))
    decided = deciding.decide("x.y", document("x.y", text="abc"))
    assert {each.id for each in decided.rules} == {"B", ON_ERROR}
    assert "rule A: p0.rego:3:22" in decided.error


def test_rules_for_which_no_time_is_left_are_told() -> None:
    texts = rule("a", "A", 'to_number(input.event.text) > 1\ninput.event.kind == "x.y"') + "".join(
        _rule(f"B{number}", 'input.event.kind == "x.y"') for number in range(6)
    )
    sources = PolicySources((PolicyFile("p0.rego", texts),), {}, "r")
    deciding = Policy(EmbeddedEngine(sources, alone_s=-1.0), on_error=Action.LOG, memo=0)
    decided = deciding.decide("x.y", document("x.y", text="abc"))
    assert [each.id for each in decided.rules] == [ON_ERROR]
    assert decided.error.endswith("and so rules B3, B4, B5")
