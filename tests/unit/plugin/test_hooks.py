"""What plugins answer while the agent runs: facts, scans, and faults in them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from krie import Event, Probe
from krie.decision import merge
from krie.errors import PluginError
from krie.plugin.report import ProbeReport
from krie.testing.events import build

from .entries import Entries, sensor
from .example import Thing


def raising(*_: object) -> Any:
    raise RuntimeError("no")


def facts(kind: str) -> Mapping[str, Any] | None:
    return {"colour": {"type": "string"}} if kind == "example.thing" else None


def test_kinds_without_facts_are_enriched_too(entries: Entries) -> None:
    """A plugin may follow in them what it needs to know of others."""
    seen: list[Event] = []
    entries.install("example", krie_sensor=lambda: sensor(), krie_enrich=lambda event: seen.append(event))
    plugins = entries.load(example={})
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert seen == [build(Thing)]
    assert (plugins.degraded, entries.faults) == ({}, [])


def test_facts_that_nobody_declared_are_a_fault(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor(), krie_enrich=lambda event: {"colour": "red"})
    assert entries.load(example={}).enrichers()["example.thing"](build(Thing)) == {}
    assert "krie_enrich added ['colour'], krie_facts declares []" in entries.faults[0].error


def test_a_raising_enricher_is_reported_once_and_then_left_alone(entries: Entries) -> None:
    calls: list[Event] = []

    def krie_enrich(event: Event) -> None:
        calls.append(event)
        raising()

    entries.install("example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=krie_enrich)
    plugins = entries.load(example={})
    enrich = plugins.enrichers()["example.thing"]
    answers = [enrich(build(Thing)) for _ in range(9)]
    assert answers == [{}] * 9
    assert len(calls) == 5
    assert [fault.degraded for fault in entries.faults] == [False, True]
    assert "RuntimeError: no" in entries.faults[0].traceback
    assert plugins.degraded == {"example": "krie_enrich failed 5 times: no"}


def test_an_undeclared_fact_is_a_fault(entries: Entries) -> None:
    entries.install(
        "example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=lambda event: {"color": "red"}
    )
    plugins = entries.load(example={})
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert "krie_enrich added ['color'], krie_facts declares ['colour']" in entries.faults[0].error


def test_a_success_between_failures_keeps_the_plugin(entries: Entries) -> None:
    turns = iter([True, True, True, True, False] * 3)

    def krie_enrich(event: Event) -> Mapping[str, Any]:
        return raising() if next(turns) else {"colour": "red"}

    entries.install("example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=krie_enrich)
    plugins = entries.load(example={})
    enrich = plugins.enrichers()["example.thing"]
    assert [enrich(build(Thing)) for _ in range(15)].count({"colour": "red"}) == 3
    assert plugins.degraded == {}


def test_a_raising_observer_of_a_required_plugin_ends_it(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor(), krie_decided=lambda event, decision: raising())
    plugins = entries.load(example={"required": True})
    (observe,) = plugins.observers()
    decision = merge([], tier="user", revision="")
    for _ in range(4):
        observe(build(Thing), decision)
    with pytest.raises(PluginError, match=r"krie_decided failed 5 times: no \(and it is required\)"):
        observe(build(Thing), decision)


def test_scans_yield_events_and_nothing_else(entries: Entries) -> None:
    def krie_scan() -> Iterator[Any]:
        yield build(Thing, value=3)

    entries.install("example", krie_sensor=lambda: sensor(), krie_scan=krie_scan)
    entries.install("other", krie_scan=lambda: ["nonsense"])
    plugins = entries.load(example={}, other={})
    assert list(plugins.scan(lambda event: event)) == [build(Thing, value=3)]
    assert "krie_scan yielded 'nonsense', which is not an Event" in entries.faults[0].error


def test_only_plugins_that_work_in_the_background_are_polled(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor(), krie_poll=lambda: [build(Thing, value=4)])
    entries.install("other", krie_poll=lambda: ["nonsense"])
    entries.install("third", krie_scan=lambda: pytest.fail("this is no scan"))
    plugins = entries.load(example={}, other={}, third={})
    assert list(plugins.poll(lambda event: event)) == [build(Thing, value=4)]
    assert [each.error for each in entries.faults] == ["TypeError: krie_poll yielded 'nonsense', which is not an Event"]


def test_plugins_learn_which_of_their_own_programs_saw_not_everything(entries: Entries) -> None:
    told: dict[str, Any] = {}

    def checked(name: str) -> Any:
        return lambda silent, missed: told.update({name: (set(silent), dict(missed))})

    for name in ("example", "other"):
        entries.install(name, krie_checked=checked(name))
    entries.install("third", krie_scan=lambda: ())
    plugins = entries.load(example={}, other={}, third={})
    reports = [
        ProbeReport(plugin, Probe(probe, None, ()), None, state, {})
        for plugin, probe, state in (("example", "a", "silent"), ("example", "b", "alive"), ("other", "c", "missing"))
    ]
    plugins.checked(reports, {"other_program": 2, "krie_dispatch": 1})
    assert told == {"example": ({"a"}, {}), "other": (set(), {"other_program": 2})}
    assert entries.faults == []
