"""Health and ancestors in the journal: by digest, and told again once in a while."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from krie.agent.bus import Bus
from krie.agent.selection import Selection
from krie.decision import Action, Mode
from krie.enforce.enforcer import Effect
from krie.events.event import EventTypes
from krie.events.given import Told, Values, digest_of, encoded, named
from krie.events.wire import Json
from krie.kernel.cgroups import Cgroups
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicyFile, PolicySources
from krie.processes.enrich import Enricher
from krie.processes.process import NOTHING
from krie.processes.table import ProcessTable
from krie.testing.events import build, encode

TYPES = EventTypes((Ptrace,))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


RULE = 'package krie.t\n\nrules contains {"id": "T1", "action": "kill"} if input.process.uid == 1000\n'


def bus(lines: list[str], important: list[str], taken: Any = None) -> Bus:
    def sink(line: str) -> bool:
        lines.append(line)
        return taken is None or bool(taken(len(lines)))

    table = ProcessTable(100, lambda _: NOTHING)
    made = Bus(
        TYPES,
        table,
        Enricher(TYPES, table, Cgroups(None), {}),
        Policy(EmbeddedEngine(PolicySources((PolicyFile("t.rego", RULE),), {}, "r")), on_error=Action.LOG, memo=9),
        [sink],
        [],
        lambda event, decision: Effect(Mode.OBSERVE),
        Selection(Action.ALLOW, [], clock=lambda: 0.0),
        [lambda line: important.append(line) or True],  # type: ignore[func-returns-value]
    )
    made.health = {"lost": 0, "degraded": ["h\x7f\u202e"]}
    return made


def values_of(lines: list[str]) -> list[list[str]]:
    return [list(json.loads(line).get("values", {})) for line in lines]


def test_each_value_is_told_once_and_again_later() -> None:
    lines: list[str] = []
    made = bus(lines, [])
    for _ in range(600):
        made.take(encode(build(Ptrace)))
    assert [number for number, found in enumerate(values_of(lines)) if found] == [0, 256, 512]
    made.health = {"lost": 1}
    made.take(encode(build(Ptrace)))
    assert values_of(lines)[-1] == [digest_of('{"lost":1}')]


def test_whoever_reads_a_line_can_look_its_values_up() -> None:
    lines: list[str] = []
    made = bus(lines, [])
    made.take(encode(build(Ptrace)))
    line, known = json.loads(lines[0]), Values()
    assert set(known.learn(line["values"])) == set(line["given"].values())
    assert {part: json.loads(known.get(digest) or "") for part, digest in line["given"].items()} == {
        "health": {"lost": 0, "degraded": ["h\x7f\u202e"]},
        "ancestors": [],
    }


def test_what_is_kept_longer_has_values_of_its_own() -> None:
    lines: list[str] = []
    important: list[str] = []
    made = bus(lines, important)
    for _ in range(60):  # more than are kept at once
        made.take(encode(build(Ptrace)))
    made.take(encode(build(Ptrace, target_tgid=9)))
    assert len(important) < len(lines)
    assert [bool(each) for each in values_of(important)] == [True, *[False] * (len(important) - 1)]


def test_a_value_whose_line_was_dropped_is_told_with_the_next() -> None:
    lines: list[str] = []
    made = bus(lines, [], taken=lambda count: count != 1)
    for _ in range(3):
        made.take(encode(build(Ptrace)))
    assert [bool(each) for each in values_of(lines)] == [True, True, False]


@given(st.dictionaries(st.sampled_from(["health", "ancestors"]), JSON, min_size=1))
def test_any_value_is_the_same_for_whoever_reads_it(values: dict[str, Json]) -> None:
    line = json.loads(Told().completed('{"v":1}', named(values)))
    known = Values()
    known.learn(line["values"])
    for each in values.values():
        assert json.loads(known.get(digest_of(encoded(each))) or "") == each


def test_a_value_under_another_digest_is_none() -> None:
    known = Values()
    assert not known.learn({digest_of("1"): 2, "x": 1})
    assert not known.learn([1])
    assert known.get(digest_of("1")) is None


def test_values_are_forgotten_where_they_take_too_much() -> None:
    known = Values(most_bytes=100)
    for number in range(100):
        known.learn({digest_of(encoded(f"{number:050}")): f"{number:050}"})
    kept = [number for number in range(100) if known.get(digest_of(encoded(f"{number:050}"))) is not None]
    assert kept == [99]
