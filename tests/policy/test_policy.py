"""Policies: what is evaluated, what is remembered, what an error costs, and where a mistake is."""

import json
from pathlib import Path
from typing import Any

import pytest
import regorus
from hypothesis import given
from hypothesis import strategies as st
from krie.decision import Action, FiredRule, Scope, merge
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import fired_rules
from krie.policy.policy import ON_ERROR, Policy, least
from krie.policy.sources import PolicyFile, PolicySources, read_sources
from krie.policy.unknown_names import unknown_names

ROOT = Path(__file__).parents[2]


def engine(*texts: str, data: dict[str, Any] | None = None) -> EmbeddedEngine:
    files = tuple(PolicyFile(f"p{number}.rego", text) for number, text in enumerate(texts))
    return EmbeddedEngine(PolicySources(files, data or {}, "r"))


def policy(*texts: str, memo: int = 100, data: dict[str, Any] | None = None) -> Policy:
    return Policy(engine(*texts, data=data), on_error=Action.LOG, memo=memo)


def rule(package: str, id_: str, condition: str, action: str = "log", more: str = "") -> str:
    return (
        f'package krie.{package}\nrules contains {{"id": "{id_}", "action": "{action}"{more}}} if {{\n{condition}\n}}\n'
    )


def document(kind: str, process: dict[str, Any] | None = None, **event: Any) -> dict[str, Any]:
    return {"event": {"kind": kind, **event}, "process": process or {}, "host": {}, "health": {}}


def test_packages_are_merged_by_the_strongest_action() -> None:
    decided = policy(
        rule("a", "A", 'input.event.kind == "x.y"', "override", ', "errno": 13'),
        rule("b", "B", 'input.event.kind == "x.y"', "kill", ', "scope": "process"'),
    ).decide("x.y", document("x.y"))
    assert (decided.action, decided.scope, decided.ttl_s) == (Action.KILL, Scope.PROCESS, 600)
    assert [each.id for each in decided.rules] == ["A", "B"]


def test_a_rule_is_described_by_its_metadata() -> None:
    about = "# METADATA\n# title: A title\n# custom: {id: A, severity: high, technique: T1562.001}\n"
    told = policy(rule("a", "A", "true").replace("rules contains", f"{about}rules contains"), rule("b", "B", "true"))
    assert told.describe("A") == {"severity": "high", "title": "A title", "technique": "T1562.001"}
    for each in ("B", "not there"):
        assert told.describe(each) == {"severity": "", "title": "", "technique": ""}
    assert told.describe(ON_ERROR)["severity"] == "high"


def test_only_packages_that_name_the_kind_are_evaluated() -> None:
    broken = rule("a", "A", 'input.event.kind == "x.y"\nto_number(input.event.text) > 1')
    deciding = policy(broken, rule("b", "B", 'input.event.kind == "x.z"'))
    decided = deciding.decide("x.z", document("x.z", text="abc"))
    assert ([each.id for each in decided.rules], decided.error) == (["B"], "")


@pytest.mark.parametrize(
    "condition",
    [
        'input.event.kind != "x.y"',
        'not input.event.kind == "x.y"',
        "input.event.kind in data.kinds",
        'startswith(input.event.kind, "x.")',
        "other",
    ],
)
def test_a_rule_whose_kinds_are_not_evident_sees_every_kind(condition: str) -> None:
    text = rule("a", "A", condition) + 'other if input.event.kind == "x.z"\n'
    decided = policy(text, data={"kinds": ["x.z"]}).decide("x.z", document("x.z"))
    assert [each.id for each in decided.rules] == ["A"]


@pytest.mark.parametrize(
    ("condition", "more"),
    [
        ('input.event.kind == "x.y" with input.event.kind as "x.y"', ""),
        ('input.event.kind in {"x.y"} with input as {"event": {"kind": "x.y"}}', ""),
        ("known := true\nknown", 'known if input.event.kind == "x.y"\n'),
        ("some known\nknown = true", 'known if input.event.kind == "x.y"\n'),
        ('known with input.event.kind as "x.y"', 'known if input.event.kind == "x.y"\n'),
        ("known", 'known contains 1 if input.event.kind == "x.y"\n'),
        ("known", 'known["a"] := 1 if input.event.kind == "x.y"\n'),
        ("known", 'known[x] := 1 if {\n\tinput.event.kind == "x.y"\n\tx := "a"\n}\n'),
        ("known", 'known.a := 1 if input.event.kind == "x.y"\n'),
        ("known", 'default known := true\nknown if input.event.kind == "x.y"\n'),
        ("known", 'known if input.event.kind == "x.y"\nknown if input.event.kind != "x.y"\n'),
        ("known", 'known if {\n\tinput.event.kind == "x.y"\n} else := 5\n'),
        ("known", "known if false\nknown if more\nmore := true\n"),
        ("known", 'known if inner\ninner := true if input.event.kind == "x.y" with input.event.kind as "x.y"\n'),
    ],
)
def test_no_rule_fires_for_a_kind_that_it_was_not_said_to_name(condition: str, more: str) -> None:
    """Whatever looks like a condition on the kind: the agent asks a package only about the kinds of its rules."""
    texts = [rule("a", "A", condition) + more, rule("b", "B", "true")]
    alone, beside = policy(texts[0]), policy(texts[0] + texts[1].partition("\n")[2])
    fires = "A" in [each.id for each in beside.decide("x.z", document("x.z")).rules]
    (found,) = alone.rules
    assert found.concerns("x.z") or not fires
    assert [each.id for each in alone.decide("x.z", document("x.z")).rules] == (["A"] if fires else [])


def test_conditions_on_the_kind_are_found() -> None:
    for condition, more in (
        ('input.event.kind == "x.y"', ""),
        ('"x.y" == input.event.kind', ""),
        ('input.event.kind in {"x.y"}', ""),
        ("known", 'known if input.event.kind == "x.y"\n'),
        (
            "known\ninput.process.uid == 5 with input.process.uid as 5",
            'known if inner\ninner if input.event.kind == "x.y"\n',
        ),
        ('event.kind == "x.y"', ""),
    ):
        text = rule("a", "A", condition) + more
        text = text.replace("krie.a\n", "krie.a\nimport input.event\n") if condition.startswith("event") else text
        (found,) = policy(text).rules
        assert found.kinds == {"x.y"}, condition


def test_repeated_inputs_are_remembered_by_what_the_rules_read() -> None:
    deciding = policy(rule("a", "A", 'input.event.kind == "x.y"\ninput.process.uid == 5'))
    for time in range(10):
        assert deciding.decide("x.y", document("x.y", {"uid": 5}, time=time)).rules
    assert not deciding.decide("x.y", document("x.y", {"uid": 6})).rules
    assert (deciding.decided, deciding.remembered) == (11, 9)


def test_what_a_called_function_reads_counts_too() -> None:
    text = rule("a", "A", 'input.event.kind == "x.y"\nroot') + "root if data.krie.lib.user == 0\n"
    deciding = policy(text, "package krie.lib\nuser := input.process.uid\n")
    assert deciding.decide("x.y", document("x.y", {"uid": 0})).rules
    assert not deciding.decide("x.y", document("x.y", {"uid": 1})).rules


def test_whole_objects_are_compared_whole() -> None:
    deciding = policy(rule("a", "A", 'input.event.kind == "x.y"\nprocess := input.process\nprocess.uid == 0'))
    assert deciding.decide("x.y", document("x.y", {"uid": 0})).rules
    assert not deciding.decide("x.y", document("x.y", {"uid": 1})).rules
    assert deciding.remembered == 0


def test_the_memo_is_bounded_and_errors_are_not_remembered() -> None:
    deciding = policy(rule("a", "A", 'input.event.kind == "x.y"\ninput.event.n > 2'), memo=3)
    for n in (1, 2, 3, 4, 1):
        deciding.decide("x.y", document("x.y", n=n))
    assert deciding.remembered == 0
    broken = policy(rule("a", "A", 'input.event.kind == "x.y"\nto_number(input.event.text) > 1'))
    for _ in range(2):
        broken.decide("x.y", document("x.y", text="abc"))
    assert (broken.remembered, broken.errors["data.krie.a"]) == (0, 2)


def test_what_changes_by_itself_is_not_remembered() -> None:
    deciding = policy(rule("a", "A", 'input.event.kind == "x.y"\ntime.now_ns() > 0'))
    for _ in range(2):
        assert deciding.decide("x.y", document("x.y")).rules
    assert deciding.remembered == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("package krie.a\nrules contains {", "p0.rego:2:17: "),
        (rule("a", "A", "x == 3"), "p0.rego:3:1: variable x is unsafe: nothing gives it a value"),
        (rule("a", "A", "nofunction(input.x)"), "p0.rego:3:1: there is no function nofunction; "),
        (rule("a", "A", "input.x", "block"), "p0.rego:2: a rule's action is wrong: Input should be 'allow', 'log'"),
        (rule("a", "A", "input.x", "kill", ', "scope": "host"'), "p0.rego:2: rule A has scope `host` and must say"),
        (rule("a", "A", "input.x", "kill", ', "colour": "red"'), "p0.rego:2: a rule's colour is wrong: Extra inputs"),
        (rule("a", "A", "input.x", "log", ', "errno": input.e'), "p0.rego:2: id, action, scope, errno and ttl_s of a"),
        ("package other\nx := 1\n", "p0.rego:1: its package must be named krie.<name>"),
        ("package krie.decision\nx := 1\n", "p0.rego:1: package krie.decision is KRIe's own entry point"),
        ("package krie.a\nrules := set()\n", "p0.rego:2: write `rules contains"),
        ('package krie.a\ndefault rules := {{"id": "A", "action": "log"}}\n', "p0.rego:2: write `rules contains"),
        ("package krie.a\ndefault rules(_) := 1\n", "p0.rego:2: write `rules contains"),
        ("package krie.a\ndefault rules := [1 | true]\n", "p0.rego:2: write `rules contains"),
        (rule("a", "A", "x") + "default x := [1, input.y]\n", "p0.rego:5:18: a default value must be a constant"),
    ],
)
def test_mistakes_lead_to_file_and_line(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        engine(text)
    assert str(caught.value).startswith(message)


def test_a_package_may_say_that_it_has_no_rules() -> None:
    for more in ("", "x := [1 | true]\n"):
        text = f"package krie.a\ndefault rules := set()\n{more}"
        assert engine(text).packages == ()
        decided = policy(text, rule("b", "B", 'input.event.kind == "x.y"\ncount(data.krie.a.rules) == 0'))
        assert [each.id for each in decided.decide("x.y", document("x.y")).rules] == ["B"]


def test_an_id_that_exists_already() -> None:
    with pytest.raises(PolicyError, match=r"p1.rego:2: rule A exists already at p0.rego:2; ids must be unique"):
        engine(rule("a", "A", "input.x"), rule("b", "A", "input.x"))


def test_names_that_nothing_has() -> None:
    rules = engine(rule("a", "A", 'input.event.kind == "x.y"\ninput.event.nmae == "z"')).packages[0].rules
    assert unknown_names(rules, {"x.y": frozenset({"name"})}) == (
        "p0.rego:2: rule A reads input.event.nmae, which its events do not have",
    )
    assert unknown_names(rules, {"x.z": frozenset({"nmae"})}) == (
        "p0.rego:2: rule A names x.y, which no loaded plugin emits",
    )


@pytest.mark.parametrize("answer", ["{}", "[1]", '[{"id": 1, "action": "log"}]', '[{"action": "log"}]'])
def test_answers_of_another_shape_are_refused(answer: str) -> None:
    with pytest.raises(PolicyError):
        fired_rules(answer)


def test_sources_have_one_digest_whatever_their_order(tmp_path: Path) -> None:
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.rego").write_text(f"package krie.{name}\n")
        (tmp_path / folder / f"{name}_test.rego").write_text("not even Rego")
        (tmp_path / folder / f"{name}.json").write_text(json.dumps({name: 1}))
    folders = [tmp_path / "one", tmp_path / "two"]
    sources = read_sources(folders, {"executables": {}})
    assert sources.data == {"executables": {}, "a": 1, "b": 1}
    assert sources.revision == read_sources(folders[::-1], {"executables": {}}).revision
    (tmp_path / "two" / "b.json").write_text('{"b": 2}')
    assert sources.revision != read_sources(folders, {"executables": {}}).revision


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"x.json:1:2: is not valid JSON"),
        ("[]", "x.json:1: must hold one JSON object"),
        ('{"taken": 1}', "krie.toml sets too"),
    ],
)
def test_broken_data(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(PolicyError, match=message):
        read_sources([tmp_path], {"taken": 0})


def test_data_that_is_accepted_is_taken_by_the_engine(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": %s1e300%s, "b": %s}' % ("[" * 98, "]" * 98, "9" * 300))  # noqa: UP031
    EmbeddedEngine(read_sources([tmp_path], {}))


def test_least_paths() -> None:
    assert least([("a", "b"), ("a",), ("c", "d"), ("a", "e", "f")]) == (("a",), ("c", "d"))


RULES = st.builds(
    FiredRule,
    st.sampled_from("ABCD"),
    st.sampled_from(Action),
    st.sampled_from(Scope),
    st.integers(0, 4),
    st.integers(0, 3),
)


@given(st.lists(RULES, max_size=6), st.integers(0, 6))
def test_the_merge_is_that_of_decision_rego(fired: list[FiredRule], cut: int) -> None:
    answers = [
        {
            "id": each.id,
            "action": str(each.action),
            "scope": str(each.scope),
            **({"errno": each.errno} if each.errno and each.action is Action.OVERRIDE else {}),
            **({"ttl_s": each.ttl_s} if each.ttl_s else {}),
        }
        for each in fired
        if each.scope is not Scope.HOST or each.ttl_s
    ]
    reference = regorus.Engine()
    reference.add_policy("decision.rego", (ROOT / "policies" / "decision.rego").read_text())
    reference.add_data_json(json.dumps({"krie": {"a": {"rules": answers[:cut]}, "b": {"rules": answers[cut:]}}}))
    expected = json.loads(reference.eval_rule_as_json("data.krie.decision.result"))
    merged = merge(fired_rules(json.dumps(answers)), tier="user", revision="r").to_json()
    assert {key: merged[key] for key in expected} == expected
