"""Plugins: found by allow-list, checked by name, and unable to hide or stop anything."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated, Any

import krie.plugin.manager
import pytest
from krie import U64, Alternative, AttachType, Doc, Event, PluginConfig, Probe, Program, Sensor, hookimpl
from krie.config import Config
from krie.decision import merge
from krie.errors import ConfigError, PluginError
from krie.kernel.features import Features
from krie.plugin.isolation import PluginFault
from krie.plugin.manager import Plugins
from krie.plugin.report import ProbeReport
from krie.testing.events import build


@dataclass(frozen=True, slots=True)
class Thing(Event):
    """An event of a plugin from outside."""

    KIND = 0x9001
    NAME = "example.thing"

    value: Annotated[U64, Doc("something")]


class Setting:
    """Entry points that lead to modules in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[PluginFault] = []
        self._monkeypatch = monkeypatch
        self._entries: dict[str, EntryPoint] = {}
        monkeypatch.setattr(krie.plugin.manager, "available", lambda: self._entries)

    def install(self, name: str, **hooks: Any) -> None:
        module = ModuleType(f"example_{name}")
        for hook, function in hooks.items():
            setattr(module, hook, hookimpl(function))
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        self._entries[name] = EntryPoint(name, module.__name__, "krie")

    def load(self, **plugins: dict[str, Any]) -> Plugins:
        return Plugins.load(Config(plugins=plugins), "krie.toml", Features(), self.faults.append)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(monkeypatch)


def sensor(**changes: Any) -> Sensor:
    return Sensor(**{"name": "example", "version": "1", "events": (Thing,), **changes})


def test_only_what_is_configured_is_imported(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor())
    setting._entries["other"] = EntryPoint("other", "no_such_module", "krie")
    plugins = setting.load(example={})
    assert [each.name for each in plugins.loaded] == ["example"]
    assert setting.faults == []


def test_a_name_that_is_not_installed(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor())
    with pytest.raises(ConfigError) as caught:
        setting.load(exampel={})
    message = "krie.toml: [plugins.exampel]: names no installed plugin; did you mean 'example'?"
    assert str(caught.value) == message


def test_a_plugin_that_does_not_import_is_left_out_with_its_traceback(setting: Setting) -> None:
    setting._entries["broken"] = EntryPoint("broken", "no_such_module", "krie")
    setting.install("example", krie_sensor=lambda: sensor())
    plugins = setting.load(broken={}, example={})
    assert [each.name for each in plugins.loaded] == ["example"]
    (fault,) = setting.faults
    assert fault.degraded
    assert "No module named 'no_such_module'" in fault.traceback
    assert plugins.degraded.keys() == {"broken"}


def test_a_required_plugin_that_does_not_import_ends_it(setting: Setting) -> None:
    setting._entries["broken"] = EntryPoint("broken", "no_such_module", "krie")
    with pytest.raises(PluginError, match="plugin broken: ModuleNotFoundError"):
        setting.load(broken={"required": True})


class Own(PluginConfig):
    depth: int = 1


def test_own_keys_reach_the_sensor_and_mistakes_in_them_the_user(setting: Setting) -> None:
    seen: list[int] = []

    def krie_sensor(config: Own) -> None:
        seen.append(config.depth)

    setting.install("example", krie_config=lambda: Own, krie_sensor=krie_sensor)
    setting.load(example={"depth": 5})
    assert seen == [5]
    with pytest.raises(ConfigError, match=r"krie.toml: plugins.example.dept: no such key; did you mean 'depth'\?"):
        setting.load(example={"dept": 5})


def alternative(function: str = "example_f", fields: frozenset[str] = frozenset()) -> Alternative:
    return Alternative("raw", (Program(AttachType.RAW_TRACEPOINT, "x", function),), fields)


def behind() -> Alternative:
    return Alternative("raw", (Program(AttachType.KPROBE, "x", "example_f", through="example_more"),))


def roaming(attach: AttachType) -> Alternative:
    return Alternative("raw", (Program(attach, "x", "example_f", roaming=32),))


OTHER: type[Event] = dataclass(frozen=True)(
    type("Other", (Event,), {"KIND": 0x9002, "NAME": "elsewhere.thing", "__module__": __name__})
)
LOW: type[Event] = dataclass(frozen=True)(
    type("Low", (Event,), {"KIND": 0x0100, "NAME": "example.low", "__module__": __name__})
)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("text", "krie_sensor returned 'text', not a krie.Sensor"),
        (sensor(name="else"), "its sensor is named 'else'; it must have the name of the entry point"),
        (sensor(events=(OTHER,)), "event elsewhere.thing must be named example.<event>"),
        (sensor(events=(LOW,)), "event example.low has kind 0x0100; numbers below 0x8000 are KRIe's own"),
        (sensor(probes=(Probe("A", None, ()),)), "probe 'A' must have a name of its own, in lower case"),
        (sensor(probes=(Probe("a", None, ()),) * 2), "probe 'a' must have a name of its own, in lower case"),
        (sensor(probes=(Probe("a", LOW, ()),)), "probe a emits Low, which is not among the sensor's events"),
        (
            sensor(probes=(Probe("a", Thing, (alternative(fields=frozenset({"valu"})),)),)),
            "a/raw fills ['valu'], which its event does not have",
        ),
        (
            sensor(probes=(Probe("a", Thing, (alternative("f"),)),)),
            "C function f must be named example_<something>",
        ),
        (sensor(defines={"LIMIT": 1}), "constant LIMIT must be named EXAMPLE_<something>"),
        (sensor(probes=(Probe("a", None, (alternative(),)),)), "has probes, but no C source"),
        (
            sensor(probes=(Probe("a", None, (roaming(AttachType.FENTRY),)),)),
            "a/raw roams: it must be a kprobe, of a probe without a canary",
        ),
        (
            sensor(probes=(Probe("a", None, (roaming(AttachType.KPROBE),), canary=lambda: None),)),
            "a/raw roams: it must be a kprobe, of a probe without a canary",
        ),
        (
            sensor(probes=(Probe("a", None, (behind(),)),)),
            "a/raw: example_f is not attached; no canary can prove it",
        ),
    ],
)
def test_sensors_that_break_the_contract_are_refused_by_name(setting: Setting, answer: object, problem: str) -> None:
    setting.install("example", krie_sensor=lambda: answer)
    plugins = setting.load(example={})
    assert plugins.degraded == {"example": f"plugin example: {problem}"}
    assert plugins.loaded == ()


@pytest.mark.parametrize("name", ["agent", "containment", "krie", "process"])
def test_names_of_the_cores_own_are_refused(setting: Setting, name: str) -> None:
    setting.install(name, krie_sensor=lambda: Sensor(name, "1"))
    problem = f"plugin {name}: {name!r} is a name of the core's own; give the entry point another one"
    assert setting.load(**{name: {}}).degraded == {name: problem}


def test_a_misspelt_hook_is_found(setting: Setting) -> None:
    setting.install("example", krie_senosr=lambda: sensor())
    assert setting.load(example={}).degraded == {
        "example": "plugin example: has no such hook: krie_senosr; did you mean krie_sensor?"
    }


def raising(*_: object) -> Any:
    raise RuntimeError("no")


def facts(kind: str) -> Mapping[str, Any] | None:
    return {"colour": {"type": "string"}} if kind == "example.thing" else None


def test_kinds_without_facts_are_enriched_too(setting: Setting) -> None:
    """A plugin may follow in them what it needs to know of others."""
    seen: list[Event] = []
    setting.install("example", krie_sensor=lambda: sensor(), krie_enrich=lambda event: seen.append(event))
    plugins = setting.load(example={})
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert seen == [build(Thing)]
    assert (plugins.degraded, setting.faults) == ({}, [])


def test_facts_that_nobody_declared_are_a_fault(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor(), krie_enrich=lambda event: {"colour": "red"})
    assert setting.load(example={}).enrichers()["example.thing"](build(Thing)) == {}
    assert "krie_enrich added ['colour'], krie_facts declares []" in setting.faults[0].error


def test_a_raising_enricher_is_reported_once_and_then_left_alone(setting: Setting) -> None:
    calls: list[Event] = []

    def krie_enrich(event: Event) -> None:
        calls.append(event)
        raising()

    setting.install("example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=krie_enrich)
    plugins = setting.load(example={})
    enrich = plugins.enrichers()["example.thing"]
    answers = [enrich(build(Thing)) for _ in range(9)]
    assert answers == [{}] * 9
    assert len(calls) == 5
    assert [fault.degraded for fault in setting.faults] == [False, True]
    assert "RuntimeError: no" in setting.faults[0].traceback
    assert plugins.degraded == {"example": "krie_enrich failed 5 times: no"}


def test_an_undeclared_fact_is_a_fault(setting: Setting) -> None:
    setting.install(
        "example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=lambda event: {"color": "red"}
    )
    plugins = setting.load(example={})
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert "krie_enrich added ['color'], krie_facts declares ['colour']" in setting.faults[0].error


def test_a_success_between_failures_keeps_the_plugin(setting: Setting) -> None:
    turns = iter([True, True, True, True, False] * 3)

    def krie_enrich(event: Event) -> Mapping[str, Any]:
        return raising() if next(turns) else {"colour": "red"}

    setting.install("example", krie_sensor=lambda: sensor(), krie_facts=facts, krie_enrich=krie_enrich)
    plugins = setting.load(example={})
    enrich = plugins.enrichers()["example.thing"]
    assert [enrich(build(Thing)) for _ in range(15)].count({"colour": "red"}) == 3
    assert plugins.degraded == {}


def test_a_raising_observer_of_a_required_plugin_ends_it(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor(), krie_decided=lambda event, decision: raising())
    plugins = setting.load(example={"required": True})
    (observe,) = plugins.observers()
    decision = merge([], tier="user", revision="")
    for _ in range(4):
        observe(build(Thing), decision)
    with pytest.raises(PluginError, match=r"krie_decided failed 5 times: no \(and it is required\)"):
        observe(build(Thing), decision)


def test_scans_yield_events_and_nothing_else(setting: Setting) -> None:
    def krie_scan() -> Iterator[Any]:
        yield build(Thing, value=3)

    setting.install("example", krie_sensor=lambda: sensor(), krie_scan=krie_scan)
    setting.install("other", krie_scan=lambda: ["nonsense"])
    plugins = setting.load(example={}, other={})
    assert list(plugins.scan(lambda event: event)) == [build(Thing, value=3)]
    assert "krie_scan yielded 'nonsense', which is not an Event" in setting.faults[0].error


def test_only_plugins_that_work_in_the_background_are_polled(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor(), krie_poll=lambda: [build(Thing, value=4)])
    setting.install("other", krie_poll=lambda: ["nonsense"])
    setting.install("third", krie_scan=lambda: pytest.fail("this is no scan"))
    plugins = setting.load(example={}, other={}, third={})
    assert list(plugins.poll(lambda event: event)) == [build(Thing, value=4)]
    assert [each.error for each in setting.faults] == ["TypeError: krie_poll yielded 'nonsense', which is not an Event"]


def test_plugins_learn_which_of_their_own_programs_saw_not_everything(setting: Setting) -> None:
    told: dict[str, Any] = {}

    def checked(name: str) -> Any:
        return lambda silent, missed: told.update({name: (set(silent), set(missed))})

    for name in ("example", "other"):
        setting.install(name, krie_checked=checked(name))
    setting.install("third", krie_scan=lambda: ())
    plugins = setting.load(example={}, other={}, third={})
    reports = [
        ProbeReport(plugin, Probe(probe, None, ()), None, state, {})
        for plugin, probe, state in (("example", "a", "silent"), ("example", "b", "alive"), ("other", "c", "missing"))
    ]
    plugins.checked(reports, {"other_program", "krie_dispatch"})
    assert told == {"example": ({"a"}, set()), "other": (set(), {"other_program"})}
    assert setting.faults == []


@dataclass(frozen=True, slots=True)
class Rival(Event):
    """Has the number of `Thing`."""

    KIND = Thing.KIND
    NAME = "rival.thing"

    value: Annotated[U64, Doc("something")]


def test_of_two_plugins_with_one_kind_the_first_is_kept(setting: Setting) -> None:
    setting.install("example", krie_sensor=lambda: sensor())
    setting.install("rival", krie_sensor=lambda: sensor(name="rival", events=(Rival,)))
    assert [each.name for each in setting.load(example={}, rival={}).loaded] == ["example"]
    (fault,) = setting.faults
    problem = "event rival.thing has kind 0x9001, which example.thing has too; one of them must take another number"
    assert (fault.plugin, fault.error) == ("rival", f"plugin rival: {problem}")


def test_an_entry_point_that_names_the_wrong_module(setting: Setting) -> None:
    setting.install("example")
    with pytest.raises(PluginError, match="example_example has no hooks; its entry point must name the class with"):
        setting.load(example={"required": True})
