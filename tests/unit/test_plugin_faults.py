"""Mistakes of plugins that would go unnoticed, or end the agent without a word."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import krie.plugin_manager
import pytest
from krie import U64, Doc, Event, Sensor, hookimpl
from krie.agent_events import OwnEvents
from krie.config import Config
from krie.errors import PluginError, UntrustedFileError
from krie.event import EventTypes
from krie.kernel.features import Features
from krie.plugin_guard import PluginFault
from krie.plugin_manager import Plugins
from krie.process_sensor import ProcessExit
from krie.testing.events import build


@dataclass(frozen=True, slots=True)
class Thing(Event):
    """An event of a plugin from outside."""

    KIND = 0x9001
    NAME = "example.thing"

    value: Annotated[U64, Doc("something")]


@dataclass(frozen=True, slots=True)
class Stranger(Event):
    """An event that the sensor does not list."""

    KIND = 0x9002
    NAME = "example.stranger"

    value: Annotated[U64, Doc("something")]


def krie_sensor() -> Sensor:
    return Sensor(name="example", version="1", events=(Thing,))


class Setting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[PluginFault] = []
        self._monkeypatch = monkeypatch

    def load(self, own: dict[str, Any] | None = None, **names: Any) -> Plugins:
        """Load a plugin whose module has these names and a sensor."""
        module = ModuleType("example_plugin")
        vars(module).update({"krie_sensor": hookimpl(krie_sensor), **names})
        return self.load_object(module, own)

    def load_object(self, plugin: object, own: dict[str, Any] | None = None) -> Plugins:
        module = ModuleType("example_holder")
        module.__dict__["plugin"] = plugin
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = EntryPoint("example", "example_holder:plugin", "krie")
        self._monkeypatch.setattr(krie.plugin_manager, "available", lambda: {"example": entry})
        return Plugins.load(Config(plugins={"example": own or {}}), "krie.toml", Features(), self.faults.append)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(monkeypatch)


def raising(**_: object) -> Any:
    raise RuntimeError("no")


def leaving(**_: object) -> Any:
    sys.exit(3)


def facts(kind: str) -> Mapping[str, Any]:
    return {"colour": {"type": "string"}}


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
    assert "which is no JSON" in setting.faults[0].error


def test_leaving_in_a_sensor_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_sensor=hookimpl(lambda: leaving()))
    assert plugins.degraded == {"example": "SystemExit: 3"}


def test_leaving_in_a_hook_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: leaving()))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert setting.faults[0].error == "SystemExit: 3"


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
    monkeypatch.setattr(krie.plugin_manager, "available", lambda: {"example": entry})
    with pytest.raises(UntrustedFileError, match=r"deep/__init__.py: can be changed by other users"):
        Plugins.load(Config(plugins={"example": {}}), "krie.toml", Features(), setting.faults.append)
