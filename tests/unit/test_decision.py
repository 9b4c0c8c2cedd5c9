"""How the answers of several rules become one decision."""

from itertools import permutations

import pytest
from krie.decision import Action, Decision, FiredRule, Scope, merge

LOG = FiredRule("LOG", Action.LOG)
REFUSE = FiredRule("REFUSE", Action.OVERRIDE, errno=13)
KILL = FiredRule("KILL", Action.KILL)
POISON = FiredRule("POISON", Action.KILL, Scope.PROCESS, ttl_s=600)
SHORT = FiredRule("SHORT", Action.KILL, Scope.PROCESS, ttl_s=5)


def merged(*rules: FiredRule) -> Decision:
    return merge(rules, tier="user", revision="r")


def test_nothing_fired_allows() -> None:
    assert merged() == Decision(Action.ALLOW, Scope.EVENT, 0, 0, (), "user", "r")


def test_actions_are_ordered_by_strength() -> None:
    assert sorted(Action) == [Action.ALLOW, Action.LOG, Action.OVERRIDE, Action.KILL]
    assert [str(each) for each in Action] == ["allow", "log", "override", "kill"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((LOG, REFUSE), (Action.OVERRIDE, Scope.EVENT, 13, 0)),
        ((LOG, REFUSE, KILL), (Action.KILL, Scope.EVENT, 0, 0)),
        ((KILL, POISON, SHORT), (Action.KILL, Scope.PROCESS, 0, 600)),
        ((SHORT, KILL, LOG), (Action.KILL, Scope.PROCESS, 0, 5)),
        # A weaker rule widens nothing and lasts no longer.
        ((FiredRule("A", Action.LOG, Scope.HOST, ttl_s=99), KILL), (Action.KILL, Scope.EVENT, 0, 0)),
        # A rule of narrower scope adds no time.
        ((FiredRule("A", Action.KILL, Scope.HOST, ttl_s=3), POISON), (Action.KILL, Scope.HOST, 0, 3)),
        # The error is that of the first by id.
        ((REFUSE, FiredRule("A", Action.OVERRIDE, errno=1)), (Action.OVERRIDE, Scope.EVENT, 1, 0)),
    ],
)
def test_the_strongest_wins_in_any_order(
    rules: tuple[FiredRule, ...], expected: tuple[Action, Scope, int, int]
) -> None:
    answers = {merged(*order) for order in permutations(rules)}
    assert len(answers) == 1
    (answer,) = answers
    assert (answer.action, answer.scope, answer.errno, answer.ttl_s) == expected
    assert [each.id for each in answer.rules] == sorted(each.id for each in rules)


def test_a_rule_that_fired_twice_is_listed_once() -> None:
    assert merged(LOG, LOG).rules == (LOG,)


def test_json_is_what_the_journal_shows() -> None:
    assert merged(LOG, POISON).to_json() == {
        "action": "kill",
        "scope": "process",
        "errno": 0,
        "ttl_s": 600,
        "rules": [{"id": "LOG", "action": "log"}, {"id": "POISON", "action": "kill"}],
        "tier": "user",
        "revision": "r",
    }
    assert merge([], tier="user", revision="r", error="x").to_json()["error"] == "x"
