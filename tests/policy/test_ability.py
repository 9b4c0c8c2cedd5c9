"""Which rules the probes of a kind can carry out in the kernel."""

import pytest
from krie import Action, Alternative, AttachType, Enforcement, FiredRule, Probe, Program, Sensor
from krie.events.event import EventTypes
from krie.plugin.report import ProbeReport
from krie.policy.engine import Rule
from krie.policy.metadata import Metadata
from krie.tier.ability import Ways, cannot, needed, sent_kinds, ways_anywhere, ways_here

from .sample import Sample

KILL, REFUSE = Enforcement.KILL, Enforcement.REFUSE
KIND = Sample.NAME


def way(name: str, *can: Enforcement, bystander: bool = False) -> Alternative:
    programs = (Program(AttachType.LSM, "file_open", f"sample_{name}"),)
    return Alternative(name, programs, can=frozenset(can), bystander=bystander)


def rule(action: Action) -> Rule:
    kinds = frozenset({KIND})
    return Rule("R", "data.krie.sample", "a.rego:1", Metadata(), FiredRule("R", action), kinds, frozenset())


@pytest.mark.parametrize(
    ("action", "asked"), [(Action.KILL, KILL), (Action.OVERRIDE, REFUSE)], ids=["kill", "override"]
)
def test_what_a_rule_asks_for_must_be_what_the_probe_can(action: Action, asked: Enforcement) -> None:
    other = REFUSE if asked is KILL else KILL
    assert needed(rule(action)) is asked
    assert cannot({KIND: {"sample.x": [way("lsm", asked)]}}, KIND, rule(action)) == ""
    assert cannot({KIND: {"sample.x": [way("lsm", other)]}}, KIND, rule(action)) == f"sample.x (lsm) cannot {asked}"


def test_every_probe_of_the_kind_must_be_able_by_one_of_its_ways() -> None:
    able, unable = [way("lsm", REFUSE), way("kprobe")], [way("kprobe"), way("raw")]
    assert cannot({KIND: {"sample.x": able}}, KIND, rule(Action.OVERRIDE)) == ""
    both: Ways = {KIND: {"sample.x": able, "sample.y": unable}}
    assert cannot(both, KIND, rule(Action.OVERRIDE)) == "sample.y (kprobe, raw) cannot refuse"


def test_probes_that_are_not_attached_hold_nobody_back() -> None:
    some: Ways = {KIND: {"sample.x": [way("lsm", REFUSE)], "sample.y": []}}
    assert cannot(some, KIND, rule(Action.OVERRIDE)) == ""
    none: Ways = {KIND: {"sample.y": []}}
    assert cannot(none, KIND, rule(Action.OVERRIDE)) == f"no probe of {KIND} is attached"
    assert cannot({}, KIND, rule(Action.OVERRIDE)) == f"no probe of {KIND} is attached"


def test_probes_whose_process_did_nothing_hold_nobody_back() -> None:
    timer = [way("perf_event", bystander=True)]
    both: Ways = {KIND: {"sample.timer": timer, "sample.x": [way("raw", KILL)]}}
    assert cannot(both, KIND, rule(Action.KILL)) == ""
    assert cannot(both, KIND, rule(Action.OVERRIDE)) == "sample.x (raw) cannot refuse"
    alone: Ways = {KIND: {"sample.timer": timer, "sample.x": []}}
    assert cannot(alone, KIND, rule(Action.KILL)) == "sample.timer (perf_event) cannot kill"


def test_ways_here_and_anywhere() -> None:
    lsm, raw = way("lsm", REFUSE), way("raw")
    probes = (Probe("x", Sample, (lsm, raw)), Probe("y", Sample, (raw,)), Probe("state", None, (raw,)))
    reports = [
        ProbeReport("sample", each, chosen, "alive", {}) for each, chosen in zip(probes, (raw, None, raw), strict=True)
    ]
    assert ways_here(reports) == {KIND: {"sample.x": [raw], "sample.y": []}}
    sensor = Sensor("sample", "1", probes, (Sample,))
    assert ways_anywhere([sensor]) == {KIND: {"sample.x": (lsm, raw), "sample.y": (raw,)}}
    assert [each.name for each in sent_kinds(ways_here(reports), EventTypes((Sample,)))] == [KIND]
    assert sent_kinds({}, EventTypes((Sample,))) == []
