"""What the agent tells about itself, for people and for the journal."""

import json
import logging
import os
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from krie import Event, Sensor
from krie.agent.bus import Bus
from krie.agent.health import LossReport
from krie.agent.missed import MissedReport
from krie.agent.presence import Presence
from krie.agent.reports import Reports
from krie.events.agent import OwnEvents
from krie.events.wire import Json
from krie.plugin.isolation import PluginFault
from krie.plugin.report import ProbeReport

from ...policy.sample import Sample
from ..kernel_side import AGENT, KernelSide, armed, own_header
from .reported import POLICY, probe


class Setting:
    """With these probes; the bus only keeps what it gets."""

    def __init__(self, *probes: ProbeReport) -> None:
        made = armed(KernelSide(), Sensor("sample", "1", events=(Sample,)), reports=probes)
        self.facts, self.types = made.facts, made.types
        self.events: list[Event] = []
        self.bus = SimpleNamespace(handle=self.events.append, judged=200)
        self.reports = Reports(cast("Bus", self.bus), OwnEvents(own_header(), made.types), made.probes, made.types)

    @property
    def told(self) -> dict[str, Json]:
        """The one event that was told."""
        (event,) = self.events
        assert event.tgid == AGENT
        return {"kind": self.types[event.kind].name, **self.types[event.kind].json(event)}


def test_started(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    setting = Setting(probe("a", "alive"), probe("b", "attached"), probe("c", "missing"))
    setting.reports.started(setting.facts, POLICY, 310, 99)
    assert setting.told == {
        "kind": "krie.started",
        "probes": 3,
        "alive": 1,
        "krie_version": version("krie"),
        "programs": "cache",
        "armed_ms": 310,
        "processes": 99,
        "release": "6.12.0",
        "revision": "revision",
    }
    assert "armed in 310 ms: 1 of 3 probes alive" in caplog.text


@pytest.mark.parametrize(("judged", "remembered", "rate"), [(200, 50, "25%"), (0, 0, "0%")])
def test_stopped(judged: int, remembered: int, rate: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    setting = Setting()
    setting.bus.judged = judged
    setting.reports.stopped("SIGTERM", 3, remembered)
    told = {"kind": "krie.stopped", "events": judged, "lost": 3, "remembered": remembered, "reason": "SIGTERM"}
    assert setting.told == told
    assert f"stopped (SIGTERM): {judged} events, 3 lost, memo hit rate {rate}" in caplog.text


@pytest.mark.parametrize(
    ("state", "reason", "blind", "warned"),
    [
        ("alive", "sees little", "NAME", False),
        ("silent", "its canary did not arrive; sees little", "NAME NUMBER", True),
        ("missing", "lsm: EPERM", "NAME NUMBER", True),
    ],
)
def test_how_a_probe_stands(
    state: str, reason: str, blind: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    only = probe("a", state)
    setting = Setting(only)
    setting.reports.probe(only, POLICY)
    assert setting.told == {
        "kind": "krie.probe",
        "plugin": "sample",
        "probe": "a",
        "alternative": "" if state == "missing" else "lsm",
        "state": state,
        "reason": reason,
        "blind": blind,
    }
    assert (f"probe sample.a is {state}" in caplog.text) is warned
    assert "rule NAME (sample.rego:" in caplog.text


def test_only_the_last_probe_of_an_event_says_which_rules_are_blind() -> None:
    first, last = probe("a", "missing"), probe("b", "alive")
    setting = Setting(first, probe("other", "missing", None), last)
    for each in (first, last):
        setting.reports.probe(each, POLICY)
    said = [setting.types[each.kind].json(each)["blind"] for each in setting.events]
    assert said == ["", "NAME"]


def test_what_containment_cannot_refuse_is_logged_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    for state, logged in (("missing", False), ("silent", True)):
        report = probe("file_open", state, None, "containment")
        setting = Setting(report)
        setting.reports.probe(report, POLICY)
        assert setting.told["state"] == state
        assert ("probe containment.file_open" in caplog.text) is logged


class Left(Presence):
    """The note of the agent before."""

    def __init__(self, folder: Path, **changed: Any) -> None:
        super().__init__(folder)
        self.note()
        before = self.before()
        assert before is not None
        self.boot_id = before.boot_id
        uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.ago_s = uptime_s / 2
        note = {
            "boot_id": before.boot_id,
            "tgid": 4321,
            "last_seen_s": time.time() - self.ago_s,
            "uptime_s": uptime_s - self.ago_s,
            "clean": False,
        }
        (folder / "agent.json").write_text(json.dumps({**note, **changed}))


@pytest.mark.parametrize(("boot", "state"), [({}, "died"), ({"boot_id": "another"}, "machine_ended")])
def test_a_gap_in_the_watch(tmp_path: Path, boot: dict[str, str], state: str, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    left = Left(tmp_path, **boot)
    setting.reports.gap(left)
    told = setting.told
    assert (told["kind"], told["state"], told["tgid_before"]) == ("krie.gap", state, 4321)
    assert isinstance(told["gap_s"], int)
    assert int(left.ago_s) <= told["gap_s"] < left.ago_s + 1000
    assert f"nobody watched for {told['gap_s']} s" in caplog.text


def test_no_gap_where_the_agent_before_ended_by_itself_or_there_was_none(tmp_path: Path) -> None:
    setting = Setting()
    setting.reports.gap(Left(tmp_path / "clean", clean=True))
    setting.reports.gap(Presence(tmp_path / "none"))
    assert setting.events == []


def test_an_agent_that_was_held_up_says_so(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    setting.reports.held_up(31.7)
    told = setting.told
    assert (told["kind"], told["state"], told["tgid_before"], told["gap_s"]) == ("krie.gap", "held_up", os.getpid(), 31)
    last = told["last_seen_s"]
    assert isinstance(last, int)
    assert time.time() - 60 < last <= time.time() - 31
    assert "nobody watched for 31.7 s" in caplog.text


@pytest.mark.parametrize(("degraded", "state"), [(False, "fault"), (True, "degraded")])
def test_a_plugin_that_failed(degraded: bool, state: str) -> None:
    setting = Setting()
    setting.reports.plugin(PluginFault("sample", "krie_scan", "OSError: gone", "traceback", degraded))
    assert setting.told == {
        "kind": "krie.plugin",
        "state": state,
        "plugin": "sample",
        "reason": "krie_scan OSError: gone",
    }


def test_what_is_lost_and_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting()
    setting.reports.loss(LossReport("", "undecodable", 3, 7))
    told = {"kind": "krie.loss", "lost_kind": "", "cause": "undecodable", "count": 3, "total": 7}
    assert setting.told == told
    assert "lost 3 records of any kind: undecodable" in caplog.text
    setting.events.clear()
    setting.reports.missed(MissedReport("sample_x", 2, 5))
    assert setting.told == {"kind": "krie.missed", "program": "sample_x", "count": 2, "total": 5}


def test_a_policy_that_came_into_force_or_did_not(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(probe("a", "alive"))
    setting.reports.policy_loaded(POLICY)
    told = {"kind": "krie.policy", "state": "loaded", "reason": "", "revision": "revision", "rules": 2}
    assert setting.told == {**told, "blind": "NAME"}
    setting.events.clear()
    setting.reports.policy_refused(POLICY, "a.rego:1:1: wrong")
    assert setting.told == {**told, "state": "refused", "reason": "a.rego:1:1: wrong", "blind": ""}
    assert "keeping the previous one: a.rego:1:1: wrong" in caplog.text
