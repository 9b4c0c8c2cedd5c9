"""A plugin that brings several sensors: the agent knows them as one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie import Alternative, AttachType, Event, Probe, Program, Sensor, hookimpl
from krie.plugin.manager import Plugins
from krie.testing.events import build

from . import example
from .example import Setting, Stranger, Thing

WAY = Alternative("raw", (Program(AttachType.RAW_TRACEPOINT, "x", "example_f"),))
COMMON = Path("common.bpf.c")
FIRST = Sensor(
    "example",
    "1",
    (Probe("first", Thing, (WAY,)),),
    (Thing,),
    (COMMON, Path("first.bpf.c")),
    Path("policy"),
    ("task_struct",),
    {"EXAMPLE_MOST": 8},
)
SECOND = Sensor(
    "example",
    "1",
    (Probe("second", Stranger, (WAY,)), Probe("both", Thing, (WAY,))),
    (Stranger, Thing),
    (COMMON, Path("second.bpf.c")),
    types=("cred", "task_struct"),
    defines={"EXAMPLE_MOST": 8, "EXAMPLE_LEAST": 1},
)


class Two:
    """Its second sensor is about strangers."""

    api = 1

    @hookimpl
    def krie_sensor(self) -> list[Sensor]:
        return [FIRST, SECOND]

    @hookimpl
    def krie_facts(self, kind: str) -> Any:
        return example.facts(kind)

    @hookimpl
    def krie_enrich(self, event: Event) -> Any:
        return {"colour": event.NAME}

    @hookimpl
    def krie_scan(self) -> Iterator[Event]:
        yield from (build(Stranger), build(Thing))


def test_they_are_put_together_in_their_order(setting: Setting) -> None:
    plugins = setting.load_object(Two)
    assert (setting.faults, plugins.degraded) == ([], {})
    (sensor,) = plugins.sensors
    assert sensor == Sensor(
        "example",
        "1",
        (*FIRST.probes, *SECOND.probes),
        (Thing, Stranger),
        (COMMON, Path("first.bpf.c"), Path("second.bpf.c")),
        Path("policy"),
        ("task_struct", "cred"),
        {"EXAMPLE_MOST": 8, "EXAMPLE_LEAST": 1},
    )


def test_hooks_serve_all_of_them(setting: Setting) -> None:
    plugins = setting.load_object(Two)
    enrich = plugins.enrichers()
    assert enrich["example.thing"](build(Thing)) == {"colour": "example.thing"}
    assert enrich["example.stranger"](build(Stranger)) == {"colour": "example.stranger"}
    assert list(plugins.scan(lambda event: event)) == [build(Stranger), build(Thing)]
    assert setting.faults == []


def loaded(setting: Setting, answer: object) -> Plugins:
    return setting.load(krie_sensor=hookimpl(lambda: answer))


def test_one_in_a_tuple_is_as_one(setting: Setting) -> None:
    assert loaded(setting, (FIRST,)).sensors == (FIRST,)


@pytest.mark.parametrize("answer", [None, [], ()])
def test_none_sits_out(setting: Setting, answer: object) -> None:
    plugins = loaded(setting, answer)
    assert (plugins.sensors, plugins.degraded) == ((), {})


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ("text", "krie_sensor returned 'text', not a krie.Sensor"),
        (replace(SECOND, name="other"), "its sensor is named 'other'; it must have the name of the entry point"),
        (replace(SECOND, version="2"), "its sensors have versions 1 and 2; use one"),
        (
            replace(SECOND, policies=Path("elsewhere")),
            "its sensors have policies in policy and elsewhere; use one folder",
        ),
        (
            replace(SECOND, defines={"EXAMPLE_MOST": 9}),
            "constant EXAMPLE_MOST is 8 in one of its sensors, 9 in another",
        ),
        (replace(SECOND, probes=FIRST.probes), "probe 'first' must have a name of its own, in lower case"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(setting: Setting, second: object, problem: str) -> None:
    assert loaded(setting, [FIRST, second]).degraded == {"example": f"plugin example: {problem}"}
