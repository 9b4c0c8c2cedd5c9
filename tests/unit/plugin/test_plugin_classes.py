"""Plugins that are classes: an instance an agent, and the API that they are written for."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest
from krie import API_VERSION, Decision, Event, Maps, Sensor, hookimpl
from krie.decision import merge
from krie.errors import PluginError
from krie.plugin import hookspecs
from krie.testing.events import build

from . import example
from .example import Setting, Thing


class Counter:
    """Counts what it was told, and says so."""

    api = 1
    made: ClassVar[list["Counter"]] = []

    def __init__(self) -> None:
        self.seen = 0
        self.made.append(self)

    @hookimpl
    def krie_sensor(self) -> Sensor:
        return example.krie_sensor()

    @hookimpl
    def krie_facts(self, kind: str) -> Any:
        return example.facts(kind)

    @hookimpl
    def krie_attached(self, maps: Maps) -> None:
        self.seen += 100

    @hookimpl
    def krie_enrich(self, event: Event) -> Any:
        self.seen += 1
        return {"colour": f"{self.seen}"}

    @hookimpl
    def krie_decided(self, decision: Decision) -> None:
        self.seen += 10

    @hookimpl
    def krie_restore(self, event: Event) -> str:
        return f"seen: {self.seen}"


def test_each_load_has_an_instance_of_its_own(setting: Setting) -> None:
    Counter.made.clear()
    first, second = setting.load_object(Counter), setting.load_object(Counter)
    first.attached(lambda name: None, None, lambda name: ())  # type: ignore[arg-type,return-value]
    enrich, (observe,) = first.enrichers()["example.thing"], first.observers()
    assert [enrich(build(Thing))["colour"] for _ in range(2)] == ["101", "102"]
    observe(build(Thing), merge([], tier="user", revision=""))
    assert [each.seen for each in Counter.made] == [112, 0]
    restores = [each.restorer("example") for each in (first, second)]
    assert [each(build(Thing)) for each in restores if each] == ["seen: 112", "seen: 0"]
    assert (setting.faults, first.degraded) == ([], {})


def never(_: object) -> Any:
    raise AssertionError("called")


def written_for(**names: Any) -> type:
    return type("Plugin", (), {"__init__": never, "krie_config": hookimpl(never), "krie_sensor": never, **names})


OTHER = API_VERSION + 1
"""An API that this KRIe does not have."""


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            {"api": OTHER},
            f"is written for plugin API {OTHER}, this KRIe has {API_VERSION}: install a KRIe with API {OTHER}, "
            f"or a version of the plugin for {API_VERSION}",
        ),
        *(
            (
                names,
                "example_holder:plugin does not say which plugin API it is written for: write "
                f"`api = {API_VERSION}` into the class, as a number",
            )
            for names in ({}, {"api": None}, {"api": str(API_VERSION)}, {"api": True})
        ),
    ],
)
def test_what_is_written_for_another_api_is_left_out_uncalled(
    setting: Setting, names: dict[str, Any], problem: str
) -> None:
    plugins = setting.load_object(written_for(**names))
    assert (plugins.degraded, plugins.loaded) == ({"example": f"plugin example: {problem}"}, ())


def test_a_required_plugin_for_another_api_ends_the_start(setting: Setting) -> None:
    with pytest.raises(PluginError, match=f"plugin example: is written for plugin API {OTHER}, this KRIe has"):
        setting.load_object(written_for(api=OTHER), {"required": True})


def test_a_module_is_for_the_first_api_where_it_does_not_say_another(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert setting.load().degraded == {}
    assert setting.load(api=OTHER).degraded.keys() == {"example"}
    monkeypatch.setattr(hookspecs, "API_VERSION", 2)
    assert "is written for plugin API 1, this KRIe has 2: install" in setting.load().degraded["example"]
    assert setting.load(api=2).degraded == {}
    assert setting.load(api="a submodule, say").degraded.keys() == {"example"}


def test_a_class_that_cannot_be_called_is_a_fault(setting: Setting) -> None:
    class NeedsMore(Counter):
        def __init__(self, more: int) -> None: ...

    degraded = setting.load_object(NeedsMore).degraded["example"]
    assert "missing 1 required positional argument: 'more'" in degraded
    assert "in made" in setting.faults[0].traceback


def test_an_object_without_a_hash_is_named(setting: Setting) -> None:
    """pluggy would fail on it, in the hooks of others."""

    @dataclass
    class Plugin:
        api: ClassVar[int] = 1

        @hookimpl
        def krie_sensor(self) -> None: ...

    assert setting.load_object(Plugin).degraded == {
        "example": "plugin example: example_holder:plugin cannot be hashed; if it is a dataclass, write eq=False"
    }


def test_a_module_with_the_class_is_not_the_class(setting: Setting) -> None:
    module = ModuleType("beside")
    module.__dict__["Counter"] = Counter
    said = setting.load_object(module).degraded["example"]
    assert said.endswith("has no hooks; its entry point must name the class with them: package.module:Class")
