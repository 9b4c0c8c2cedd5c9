"""Plugins: found by allow-list, checked by name, and unable to hide or stop anything."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Annotated

import pytest
from krie import U64, Alternative, AttachType, Doc, Event, PluginConfig, Probe, Program, Sensor
from krie.errors import ConfigError, PluginError

from .entries import Entries, sensor
from .example import Thing


def test_only_what_is_configured_is_imported(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor())
    entries._entries["other"] = EntryPoint("other", "no_such_module", "krie")
    plugins = entries.load(example={})
    assert [each.name for each in plugins.loaded] == ["example"]
    assert entries.faults == []


def test_a_name_that_is_not_installed(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor())
    with pytest.raises(ConfigError) as caught:
        entries.load(exampel={})
    message = "krie.toml: [plugins.exampel]: names no installed plugin; did you mean 'example'?"
    assert str(caught.value) == message


def test_a_plugin_that_does_not_import_is_left_out_with_its_traceback(entries: Entries) -> None:
    entries._entries["broken"] = EntryPoint("broken", "no_such_module", "krie")
    entries.install("example", krie_sensor=lambda: sensor())
    plugins = entries.load(broken={}, example={})
    assert [each.name for each in plugins.loaded] == ["example"]
    (fault,) = entries.faults
    assert fault.degraded
    assert "No module named 'no_such_module'" in fault.traceback
    assert plugins.degraded.keys() == {"broken"}


def test_a_required_plugin_that_does_not_import_ends_it(entries: Entries) -> None:
    entries._entries["broken"] = EntryPoint("broken", "no_such_module", "krie")
    with pytest.raises(PluginError, match="plugin broken: ModuleNotFoundError"):
        entries.load(broken={"required": True})


class Own(PluginConfig):
    depth: int = 1


def test_own_keys_reach_the_sensor_and_mistakes_in_them_the_user(entries: Entries) -> None:
    seen: list[int] = []

    def krie_sensor(config: Own) -> None:
        seen.append(config.depth)

    entries.install("example", krie_config=lambda: Own, krie_sensor=krie_sensor)
    entries.load(example={"depth": 5})
    assert seen == [5]
    with pytest.raises(ConfigError, match=r"krie.toml: plugins.example.dept: no such key; did you mean 'depth'\?"):
        entries.load(example={"dept": 5})


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
def test_sensors_that_break_the_contract_are_refused_by_name(entries: Entries, answer: object, problem: str) -> None:
    entries.install("example", krie_sensor=lambda: answer)
    plugins = entries.load(example={})
    assert plugins.degraded == {"example": f"plugin example: {problem}"}
    assert plugins.loaded == ()


@pytest.mark.parametrize("name", ["agent", "containment", "krie", "process"])
def test_names_of_the_cores_own_are_refused(entries: Entries, name: str) -> None:
    entries.install(name, krie_sensor=lambda: Sensor(name, "1"))
    problem = f"plugin {name}: {name!r} is a name of the core's own; give the entry point another one"
    assert entries.load(**{name: {}}).degraded == {name: problem}


def test_a_misspelt_hook_is_found(entries: Entries) -> None:
    entries.install("example", krie_senosr=lambda: sensor())
    assert entries.load(example={}).degraded == {
        "example": "plugin example: has no such hook: krie_senosr; did you mean krie_sensor?"
    }


@dataclass(frozen=True, slots=True)
class Rival(Event):
    """Has the number of `Thing`."""

    KIND = Thing.KIND
    NAME = "rival.thing"

    value: Annotated[U64, Doc("something")]


def test_of_two_plugins_with_one_kind_the_first_is_kept(entries: Entries) -> None:
    entries.install("example", krie_sensor=lambda: sensor())
    entries.install("rival", krie_sensor=lambda: sensor(name="rival", events=(Rival,)))
    assert [each.name for each in entries.load(example={}, rival={}).loaded] == ["example"]
    (fault,) = entries.faults
    problem = "event rival.thing has kind 0x9001, which example.thing has too; one of them must take another number"
    assert (fault.plugin, fault.error) == ("rival", f"plugin rival: {problem}")


def test_an_entry_point_that_names_the_wrong_module(entries: Entries) -> None:
    entries.install("example")
    with pytest.raises(PluginError, match="example_example has no hooks; its entry point must name the class with"):
        entries.load(example={"required": True})
