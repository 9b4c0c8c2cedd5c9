"""Mistakes of plugins that would go unnoticed: hooks, facts, scans and values that are none."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import krie.plugin.manager
import pytest
from krie import Action, Decision, Event, FiredRule, hookimpl
from krie.config import Config
from krie.decision import merge
from krie.errors import PluginError, UntrustedFileError
from krie.events.agent import OwnEvents
from krie.events.event import EventTypes
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.processes.sensor import ProcessExit
from krie.testing.events import build

from .example import Setting, Stranger, Thing, facts


def raising(**_: object) -> Any:
    raise RuntimeError("no")


def leaving(**_: object) -> Any:
    sys.exit(3)


def test_a_hook_without_its_mark_is_found(setting: Setting) -> None:
    assert setting.load(krie_scan=lambda: ()).degraded == {
        "example": "plugin example: krie_scan would never be called; write @krie.hookimpl above it"
    }


def test_a_module_whose_name_looks_like_a_hook_is_none(setting: Setting) -> None:
    assert setting.load(krie_helpers=ModuleType("krie_helpers")).degraded == {}


def test_a_misspelt_hook_of_an_object_is_found(setting: Setting) -> None:
    class Plugin:
        @hookimpl
        def krie_scann(self) -> None: ...

    assert setting.load_object(Plugin()).degraded == {
        "example": "plugin example: has no such hook: krie_scann; did you mean krie_scan?"
    }


def test_failing_to_take_a_baseline_degrades_at_once(setting: Setting) -> None:
    plugins = setting.load(krie_attached=hookimpl(lambda maps: raising()))
    plugins.attached(lambda name: None, None, lambda name: ())  # type: ignore[arg-type,return-value]
    assert plugins.degraded == {"example": "krie_attached failed: no"}
    assert [each.degraded for each in setting.faults] == [True]


def test_failing_to_take_a_baseline_ends_a_required_plugin(setting: Setting) -> None:
    plugins = setting.load({"required": True}, krie_attached=hookimpl(lambda maps: raising()))
    with pytest.raises(PluginError, match=r"krie_attached failed: no \(and it is required\)"):
        plugins.attached(lambda name: None, None, lambda name: ())  # type: ignore[arg-type,return-value]


def test_declared_facts_without_an_enricher_degrade(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts))
    assert plugins.enrichers() == {}
    assert plugins.degraded == {"example": "declares facts, but has no krie_enrich"}


def test_facts_of_another_type_are_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(lambda kind: ["colour"]))
    assert plugins.facts("example.thing") == {}
    assert "krie_facts returned ['colour'], not a mapping" in setting.faults[0].error


def test_a_scan_yields_the_plugins_own_events_only(setting: Setting) -> None:
    plugins = setting.load(krie_scan=hookimpl(lambda: [build(Stranger)]))
    assert list(plugins.scan(lambda event: event)) == []
    assert "krie_scan yielded Stranger, which is not among the sensor's events" in setting.faults[0].error


def test_a_scans_events_are_completed_as_the_agents_own(setting: Setting) -> None:
    own = OwnEvents(build(ProcessExit, tgid=77), EventTypes([Thing]))
    plugins = setting.load(krie_scan=hookimpl(lambda: [Thing.without_header(value=n) for n in (5, 6)]))
    first, second = plugins.scan(own.complete)
    assert isinstance(first, Thing)
    assert isinstance(second, Thing)
    assert (first.value, second.value, first.seq, second.seq) == (5, 6, 0, 1)
    assert (first.kind, first.tgid) == (Thing.KIND, 77)
    assert 0 < first.time <= second.time


def test_a_value_that_its_field_cannot_hold_is_a_fault(setting: Setting) -> None:
    own = OwnEvents(build(ProcessExit), EventTypes([Thing]))
    plugins = setting.load(krie_scan=hookimpl(lambda: [Thing.without_header(value=-1)]))
    assert list(plugins.scan(own.complete)) == []
    assert setting.faults[0].hook == "krie_scan"


@pytest.mark.parametrize("value", [b"red", {"red"}, float("nan"), [object()], {1: "red"}])
def test_a_fact_that_is_no_json_is_a_fault(setting: Setting, value: object) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert "which is not JSON" in setting.faults[0].error


def test_leaving_in_a_sensor_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_sensor=hookimpl(lambda: leaving()))
    assert plugins.degraded == {"example": "SystemExit: 3"}


def test_leaving_in_a_hook_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: leaving()))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert setting.faults[0].error == "SystemExit: 3"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (10**5000, "is not JSON"),
        (-(1 << 64), "is not JSON"),
        ("\ud800", "surrogates not allowed"),
        ("x" * 100_000, "more than 64 KiB of facts"),
        ([0] * 10_000, "more than 64 KiB of facts"),
    ],
    ids=["wide", "low", "surrogate", "long", "many"],
)
def test_a_fact_that_the_journal_cannot_hold_is_a_fault(setting: Setting, value: object, problem: str) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert problem in setting.faults[0].error


def test_a_fact_that_is_nested_without_end_is_a_fault(setting: Setting) -> None:
    value: list[object] = []
    value.append(value)
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert setting.faults[0].error.startswith("RecursionError")


@pytest.mark.parametrize("answer", [5, b"done", ["x"]])
def test_a_restoration_answers_with_a_text_or_none(setting: Setting, answer: object) -> None:
    restore = setting.load(krie_restore=hookimpl(lambda event: answer)).restorer("example")
    assert restore is not None
    assert restore(build(Thing)) == "the plugin failed; see its event"
    assert "krie_restore returned" in setting.faults[0].error


def test_a_scan_without_end_is_given_up(setting: Setting) -> None:
    def endless() -> Iterator[Event]:
        while True:
            yield Thing.without_header(value=1)

    plugins = setting.load(krie_scan=hookimpl(endless))
    assert list(plugins.scan(lambda event: event)) == []
    assert "krie_scan yielded more than 10000 events" in setting.faults[0].error


def spoil(event: Thing, decision: Decision) -> None:
    object.__setattr__(event, "value", 666)
    for shared in (decision, *decision.rules):
        for name in ("action", "scope"):
            with pytest.raises(AttributeError):
                object.__setattr__(shared, name, None)


def test_no_plugin_changes_what_others_see(setting: Setting) -> None:
    """A decision is remembered, and answers many events."""
    (observe,) = setting.load(krie_decided=hookimpl(spoil)).observers()
    event = build(Thing, value=5)
    decision = merge([FiredRule("T1", Action.KILL)], tier="user", revision="r")
    observe(event, decision)
    assert setting.faults == []
    assert event == build(Thing, value=5)
    assert decision == merge([FiredRule("T1", Action.KILL)], tier="user", revision="r")


def test_a_package_that_others_could_change_is_not_imported(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    package = tmp_path / "loose_package"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "plugin.py", "deep/__init__.py"):
        (package / name).write_text("raise AssertionError('imported')\n")
    (package / "deep/__init__.py").chmod(0o666)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("example", "loose_package.plugin", "krie")
    monkeypatch.setattr(krie.plugin.manager, "available", lambda: {"example": entry})
    with pytest.raises(UntrustedFileError, match=r"deep/__init__.py: can be changed by other users"):
        Plugins.load(Config(plugins={"example": {}}), "krie.toml", Features(), setting.faults.append)
