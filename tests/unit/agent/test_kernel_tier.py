"""What of a policy is in force in the kernel, and what of an event was decided there."""

from dataclasses import replace

import pytest
from krie import KernelError, Sensor
from krie.agent.kernel_tier import KernelTier, enforced_kinds
from krie.decision import Mode
from krie.enforce.enforcer import RuleNumbers
from krie.events.event import BY_TABLE
from krie.events.table_layout import Table
from krie.testing.events import build
from krie.tier.domain import Numbers
from krie.tier.placement import Tiers

from ...policy.sample import Sample
from ...policy.subjects import subject
from ..kernel_side import KernelSide

SENSOR = Sensor("sample", "1", events=(Sample,))
MADE = subject(
    ("REFUSES", "override", ["input.process.uid == 5"]),
    ("KILLS", "kill", ["input.process.uid == 6"]),
)
EPERM = 1


class Setting:
    def __init__(self, mode: Mode = Mode.ENFORCE) -> None:
        self.kernel, self.rules = KernelSide(), RuleNumbers()
        tables = self.kernel.tables(self.kernel.maps, (Sample.KIND,))
        self.tier = KernelTier(enforced_kinds((SENSOR,), {"sample": mode}), tables, self.rules.number, 600)

    def outcomes(self) -> dict[str, tuple[int, int, int]]:
        """Time of poison, error and kill by rule, as programs read them."""
        ((_, (table,)),) = self.kernel.made[-1:]
        found = (each for each in Table.decode(table).outcomes if each.rule)
        return {self.rules.name(each.rule): (each.poison_ns, each.error, each.kill) for each in found}


def test_a_refusal_and_a_kill_both_give_an_error() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers)
    assert setting.outcomes() == {"REFUSES": (0, EPERM, 0), "KILLS": (600 * 10**9, EPERM, 1)}


def test_rules_of_a_plugin_that_observes_are_not_decided_there() -> None:
    setting = Setting(Mode.OBSERVE)
    setting.tier.install(MADE.tiers, MADE.numbers)
    assert setting.kernel.made == []
    assert setting.tier.rules == {}


def test_status_names_the_rules_in_force() -> None:
    setting = Setting()
    assert setting.tier.status() == {"generation": 0, "rules": {}, "only_refuse": []}
    setting.tier.install(MADE.tiers, MADE.numbers)
    assert setting.tier.status() == {
        "generation": 1,
        "rules": {"sample.seen": ["KILLS", "REFUSES"]},
        "only_refuse": [],
    }


IN_FULL = {"REFUSES": (0, EPERM, 0), "KILLS": (600 * 10**9, EPERM, 1)}
REFUSING = {"REFUSES": (0, EPERM, 0), "KILLS": (0, EPERM, 0)}


def test_rules_that_may_only_refuse_still_do_and_get_their_way_again() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers)
    setting.tier.only_refuse(frozenset({"KILLS"}))
    assert setting.outcomes() == REFUSING
    assert setting.tier.status()["only_refuse"] == ["KILLS"]
    installed = len(setting.kernel.made)
    setting.tier.only_refuse(frozenset({"KILLS"}))
    assert len(setting.kernel.made) == installed  # nothing changes
    setting.tier.only_refuse(frozenset())
    assert setting.outcomes() == IN_FULL


def test_a_new_policy_holds_nothing_back() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers, frozenset({"KILLS"}))
    setting.tier.install(MADE.tiers, MADE.numbers)
    assert setting.outcomes() == IN_FULL


def test_a_policy_without_tables_replaces_one_that_had_some() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers)
    setting.tier.remove()
    assert setting.kernel.in_force == [False]
    assert setting.tier.rules == {}
    installed = len(setting.kernel.made)
    setting.tier.remove()
    assert len(setting.kernel.made) == installed  # there is nothing to take back


def test_what_the_kernel_does_not_take_changes_nothing() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers)
    setting.kernel.full = True
    with pytest.raises(KernelError):
        setting.tier.install(Tiers(), Numbers())
    with pytest.raises(KernelError):
        setting.tier.only_refuse(frozenset({"KILLS"}))
    assert setting.tier.rules == {"sample.seen": {"KILLS", "REFUSES"}}
    assert setting.tier.numbers is MADE.numbers


def test_each_table_has_the_number_of_its_generation() -> None:
    setting = Setting()
    for generation in (1, 2):
        setting.tier.install(MADE.tiers, MADE.numbers)
        assert Table.decode(setting.kernel.made[-1][1][0]).generation == generation


def test_which_rules_a_table_decided_for_an_event() -> None:
    setting = Setting()
    setting.tier.install(MADE.tiers, MADE.numbers)
    setting.tier.install(MADE.tiers, MADE.numbers)
    event = build(Sample, decided_by=BY_TABLE, generation=2)
    assert setting.tier.decided(event, "sample.seen", "KILLS") == {"KILLS", "REFUSES"}
    before = replace(event, generation=1)  # which rules that table had is no longer known
    assert setting.tier.decided(before, "sample.seen", "OLD") == {"OLD"}
    assert setting.tier.decided(replace(event, decided_by=1), "sample.seen", "KILLS") == frozenset()
