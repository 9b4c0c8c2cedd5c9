"""A recorded line is decided again only where each value that rules read is one that such an event has; and whatever
differs between two verdicts, people see it.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pytest
from krie.decision import Action, Decision, FiredRule, Scope, merge
from krie.events.given import Values, named
from krie.policy.embedded import EmbeddedEngine
from krie.policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA
from krie.policy.policy import Policy
from krie.processes.enrich import PROCESS_SCHEMA
from krie.review.compared import Comparison, Tally, changes, outcome, recorded_apart
from krie.review.recorded import Needs, Unreadable, recorded
from krie.review.shape import Shape

from ..recorded_journal import SCHEMAS, SYSCTL, Recorder, rule, sources

KIND = f'input.event.kind == "{SYSCTL}"'
NO_VALUE: dict[str, list[Any]] = {
    "integer": [None, "5", True, 1.5, 5.0, [], {}],
    "string": [None, 5, True, [], {}],
    "boolean": [None, 0, 1, "true", [], {}],
    "array": [None, 5, "x", {}, [5], [None], [[]]],
    "object": [None, 5, "x", [], {}, {"more": 1}],
}


def properties(schema: Any) -> Iterator[tuple[str, Any]]:
    yield from schema.get("properties", {}).items()


def line() -> dict[str, Any]:
    recorder = Recorder(sources(rule("A", "log", KIND)))
    recorder.bus.host = {name: "x" for name, _ in properties(HOST_SCHEMA)}
    recorder.bus.health = {
        "lost": 0, "missed": 0, "policy_failures": 0, "probes_not_alive": ["a"], "degraded": [], "services": ["b"],
        "engine_stands_in": False,
    }  # fmt: skip
    recorder.sysctl("kernel/a", old="1", new="0")
    return dict(json.loads(recorder.lines[0]))


LINE = line()


def needs(*conditions: str) -> Needs:
    packages = EmbeddedEngine(sources(rule("A", "log", KIND, *conditions))).packages
    return Needs(packages, SCHEMAS)


def fields() -> Iterator[tuple[str, Mapping[str, Any]]]:
    parts = {"event": SCHEMAS[SYSCTL], "process": PROCESS_SCHEMA, "host": HOST_SCHEMA, "health": HEALTH_SCHEMA}
    for part, schema in parts.items():
        for name, of in properties(schema):
            if (part, name) not in (("event", "kind"), ("process", "ancestors")):
                yield f"{part}.{name}", of
                yield from ((f"{part}.{name}.{inner}", of_inner) for inner, of_inner in properties(of))


def with_value(where: str, value: Any) -> bytes:
    """The line with something else there."""
    found = json.loads(json.dumps(LINE))
    part, *names = where.split(".")
    if part == "health":
        digest = found["given"]["health"]
        part_of = found["values"].pop(digest)
    else:
        part_of = found[part]
    *path, last = names
    at = part_of
    for name in path:
        at = at[name]
    at[last] = value
    if part == "health":
        ((digest, _),) = named({"health": part_of}).values()
        found["given"]["health"] = digest
        found["values"][digest] = part_of
    return json.dumps(found).encode()


FIELDS = dict(fields())


@pytest.mark.parametrize("where", sorted(FIELDS))
def test_a_value_that_no_event_has_is_told_where_rules_read_it(where: str) -> None:
    schema = FIELDS[where]
    reads, reads_not, whole = needs(f"input.{where} != 77"), needs("true"), needs("count(input) > 0")
    text = json.dumps(LINE).encode()
    assert reads.lacks(*recorded(text, Values())[:2]) == ()
    wrong = NO_VALUE[schema.get("type", "string")]
    wrong = [*wrong, schema["minimum"] - 1] if "minimum" in schema else wrong
    wrong = [*wrong, schema["maximum"] + 1] if "maximum" in schema else wrong
    wrong = [*wrong, "no such"] if "enum" in schema or "pattern" in schema else wrong
    for value in wrong:
        text = with_value(where, value)
        for each in (reads, whole):
            try:
                assert each.lacks(*recorded(text, Values())[:2]), value
            except Unreadable as error:
                assert where in str(error)
        assert reads_not.lacks(*recorded(text, Values())[:2]) == ()


def test_the_type_of_a_uid_is_not_guessed() -> None:
    """True is equal to 1 as a key, so that the memo would take one for the other."""
    tally = Tally()
    policy = sources(rule("A", "log", KIND, "input.process.uid == 1"))
    engine = EmbeddedEngine(policy)
    old, new = (Policy(engine, on_error=Action.LOG, memo=10) for _ in range(2))
    comparison = Comparison(old, new, Needs(engine.packages, SCHEMAS), lambda *_: None)
    for number, uid in enumerate((1, "1", True, 1.0, None, [1]), 1):
        comparison.line(tally, number, (0, number), with_value("process.uid", uid), "")
    assert tally.same == 1
    assert tally.undecided == {
        f"{SYSCTL}: process.uid is not a value that such an event has: input should be a valid integer": 5
    }


def test_an_event_of_another_kind_than_its_line_is_none() -> None:
    text = with_value("event.kind", "runtime_integrity.ptrace")
    with pytest.raises(Unreadable, match="of another kind"):
        recorded(text, Values())


def test_fields_that_nobody_knows_are_told_where_rules_read_the_whole() -> None:
    text = with_value("event.more", 1)
    assert needs("true").lacks(*recorded(text, Values())[:2]) == ()
    with pytest.raises(Unreadable, match=r"event\.more"):
        needs("count(input.event) > 3").lacks(*recorded(text, Values())[:2])


def test_a_schema_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="an unknown form of schema"):
        Shape({"properties": {"a": {"oneOf": []}}}, [("a",)])


# Verdicts in words

VERDICTS = [
    (action, scope, errno, ttl_s)
    for action, scope, errno, ttl_s in product(Action, Scope, (0, 1, 2, 13), (0, 1, 600))
]  # fmt: skip


def decision(action: Action, scope: Scope, errno: int, ttl_s: int, *rules: FiredRule) -> Decision:
    return Decision(action, scope, errno, ttl_s, rules, "user", "r")


def test_other_verdicts_have_other_words() -> None:
    assert len({outcome(decision(*each)) for each in VERDICTS}) == len(VERDICTS)
    for one, other in combinations(VERDICTS, 2):
        a, b = (FiredRule("A", *each) for each in (one, other))
        ((_, told),) = changes([a], [b])
        before, after = told.split(" becomes ")
        assert before != after


def test_a_rule_that_fires_with_two_verdicts_is_told_by_both() -> None:
    log, kill = FiredRule("A", Action.LOG), FiredRule("A", Action.KILL)
    assert list(changes([log, kill], [kill])) == [("A", "log and kill becomes kill")]
    assert list(changes([kill], [log, kill])) == [("A", "kill becomes log and kill")]
    assert list(changes([log, kill], [kill, log])) == []


@pytest.mark.parametrize("name", ["action", "scope", "errno", "ttl_s", "rules"])
def test_what_differs_from_the_record_is_visible(name: str) -> None:
    now = merge([FiredRule("A", Action.LOG), FiredRule("B", Action.LOG)], tier="user", revision="r")
    values: list[object] = [None, 7, "x", [], {}, [{"id": "A", "action": "kill"}, {"id": "B", "action": "log"}]]
    for value in values:
        then = {**now.to_json(), name: value}
        old, new = recorded_apart(then, now)
        assert old != new, value
        if name not in ("action", "rules"):
            assert f"{name} {json.dumps(value)}" in old
    assert recorded_apart(now.to_json(), now) == ("log: A log, B log",) * 2


def test_a_wide_difference_stays_visible_in_long_lists() -> None:
    rules = [FiredRule(f"RULE{number:03}", Action.LOG) for number in range(100)]
    now = merge(rules, tier="user", revision="r")
    then = merge([*rules[:-1], replace_action(rules[-1])], tier="user", revision="r")
    assert recorded_apart(then.to_json(), now) == ("override, errno 1: RULE099 override", "log, errno 0: RULE099 log")


def replace_action(fired: FiredRule) -> FiredRule:
    return fired._replace(action=Action.OVERRIDE, errno=1)
