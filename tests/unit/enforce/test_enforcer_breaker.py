"""Rules that bind too many only refuse from then on, and the rules beside them still hold."""

import os

from krie import Action, FiredRule, Scope
from krie.decision import merge
from krie.events.event import BY_TABLE

from .enforced import Setting, by, decided, lives

TRIPPED = "spared: the rule's breaker is tripped"
POISON = decided(Action.OVERRIDE, Scope.PROCESS, ttl_s=9)


def test_a_rule_that_poisons_too_many_only_refuses(victim: int) -> None:
    setting = Setting(most=2)
    outcomes = [setting.enforcer(by(victim, uid=each), POISON) for each in (1, 2, 3, 1)]
    assert [each.done for each in outcomes] == [("poisoned",), ("poisoned",), (TRIPPED, "bound"), (TRIPPED, "bound")]
    assert outcomes[2].would == ("poison", "override")
    assert setting.tripped == [("R1", 3)]
    assert setting.done(by(victim, uid=4), decided(Action.OVERRIDE, Scope.PROCESS, rule="R2")) == ["poisoned"]


def test_a_rule_that_kills_too_many_kills_nobody(victim: int) -> None:
    setting = Setting(most=1)
    setting.done(by(os.getpid(), uid=1), POISON)
    assert setting.done(by(victim, uid=2), decided(Action.KILL, Scope.PROCESS)) == [TRIPPED, "bound"]
    assert setting.tables.bound[-1].errno == 1
    assert lives(victim)


def test_refusing_never_trips_it(victim: int) -> None:
    setting = Setting(most=1)
    for uid in range(100):
        assert setting.done(by(victim, uid=uid), decided(Action.OVERRIDE)) == ["bound"]
    assert setting.tripped == []


def test_the_processes_of_one_user_do_not_trip_it(victim: int) -> None:
    setting = Setting(most=1)
    for _ in range(100):
        assert setting.done(by(victim, uid=1), POISON) == ["poisoned"]
    assert setting.done(by(victim, uid=1), decided(Action.KILL)) == ["killed"]


def test_the_rules_beside_a_tripped_one_still_hold(victim: int) -> None:
    setting = Setting(most=1)
    setting.done(by(os.getpid(), uid=1), decided(Action.OVERRIDE, Scope.PROCESS, rule="R1"))
    both = merge(
        [FiredRule("R1", Action.KILL, Scope.EVENT), FiredRule("R2", Action.OVERRIDE, Scope.PROCESS, 13)],
        tier="user",
        revision="r",
    )
    assert setting.done(by(victim, uid=2), both) == [TRIPPED, "poisoned"]
    assert setting.tables.given[-1].errno == 13
    assert lives(victim)


def test_the_kernels_hits_count_for_the_breaker_too(victim: int) -> None:
    setting = Setting(most=1)
    setting.in_kernel = frozenset({"R1"})
    for uid in (1, 2, 3):
        done = setting.done(by(victim, uid=uid, done=3, decided_by=BY_TABLE), decided(Action.OVERRIDE, Scope.PROCESS))
        assert done == ["refused", "poisoned"]
    assert setting.tripped == [("R1", 2)]


def test_the_kernels_refusals_do_not(victim: int) -> None:
    setting = Setting(most=1)
    setting.in_kernel = frozenset({"R1"})
    for uid in range(100):
        event = by(victim, uid=uid, done=1, decided_by=BY_TABLE)
        assert setting.done(event, decided(Action.OVERRIDE)) == ["refused"]
    assert setting.tripped == []
