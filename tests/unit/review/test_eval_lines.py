"""`krie policy eval` of many lines: one answer a line, in order, whatever the lines are."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from krie.cli.policy import _object, _read
from krie.decision import Action
from krie.errors import PolicyError
from krie.events.given import Values, named
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.eval_lines import Reading, are_lines, decided, document_of
from krie.review.journal_reader import MOST_LINE, pieces_of
from krie.review.recorded import Needs

RULES = """package krie.site
rules contains {"id": "A", "action": "log"} if input.event.name == "a"
rules contains {"id": "H", "action": "kill"} if input.health.lost == 9
rules contains {"id": "P", "action": "log"} if input.process.ancestors[_].comm == "sh"
"""


EVENT: dict[str, Any] = {"type": "object", "properties": {"kind": {"type": "string"}, "name": {"type": "string"}}}


def reading(engine: EmbeddedEngine, *, partial: bool) -> Reading:
    return Reading(Needs(engine.packages, {"x.y": EVENT, "x.z": EVENT}), partial)


def answers(text: bytes, *, partial: bool = True, rego: str = RULES) -> list[dict[str, Any]]:
    engine = EmbeddedEngine(PolicySources((PolicyFile("p.rego", rego),), {}, "r"))
    policy = Policy(engine, on_error=Action.LOG, memo=100)
    return list(decided(pieces_of(io.BytesIO(text)), policy, reading(engine, partial=partial)))


def rules(answer: dict[str, Any]) -> list[str]:
    return [each["id"] for each in answer["rules"]]


def event(name: str, kind: str = "x.y", **more: Any) -> bytes:
    return json.dumps({"kind": kind, "event": {"name": name}, **more}).encode() + b"\n"


def test_each_line_gets_its_answer() -> None:
    found = answers(event("a") + b"\n" + event("b") + event("a").rstrip())
    assert [(each["line"], rules(each)) for each in found] == [(1, ["A"]), (3, []), (4, ["A"])]


def test_what_a_line_names_is_looked_up() -> None:
    given = named({"health": {"lost": 9}, "ancestors": [{"comm": "sh"}]})
    names = {part: digest for part, (digest, _) in given.items()}
    values = {digest: json.loads(text) for digest, text in given.values()}
    found = answers(
        event("a", given=names, values=values) + event("b", given=names) + event("b", given={"health": "no"})
    )
    assert [rules(each) for each in found] == [["A", "H", "P"], ["H", "P"], []]


BAD = {
    "no JSON": b"{",
    "deep": b'{"event":' + b"[" * 100_000,
    "twice": b'{"kind":"x.y","event":{"a":1,"a":2}}',
    "NaN": b'{"kind":"x.y","event":{"a":NaN}}',
    "too large": b'{"kind":"x.y","event":{"a":1e999}}',
    "digits": b'{"kind":"x.y","event":{"a":' + b"9" * 10_000 + b"}}",
    "no object": b"[1]",
    "no kind": b'{"event":{}}',
    "list for a kind": b'{"event":{"kind":["a"]}}',
    "list for one of two": b'{"kind":"x.y","event":{"kind":["a"]}}',
    "two kinds": b'{"kind":"x.y","event":{"kind":"x.z"}}',
    "unknown kind": b'{"kind":"x.nosuch","event":{}}',
    "no event": b'{"kind":"x.y","event":5}',
    "NUL": b"\0\0\0",
    "no text": b'{"kind":"\xff","event":{}}',
    "long": b'{"event":"' + b"x" * MOST_LINE,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_told_and_costs_no_other(name: str) -> None:
    before, bad, after = answers(event("a") + BAD[name] + b"\n" + event("a"))
    assert rules(before) == rules(after) == ["A"]
    assert (bad["line"], after["line"]) == (2, 3)
    assert bad["error"]
    assert "action" not in bad


@pytest.mark.parametrize(
    ("text", "many"),
    [
        (b'{"event": {}}\n{"event": {}}\n', True),
        (b'\n{"event": {}}\n\n', False),
        (b'{\n"event": {}}\n', False),
        (b'{"event": {}}', False),
        (b"", False),
    ],
)
def test_lines_are_told_from_a_document_of_many_lines(text: bytes, many: bool) -> None:
    assert are_lines(text) is many


def test_a_document_says_what_it_says() -> None:
    assert document_of({"event": {"kind": "k"}, "host": {"name": "x"}, "process": {"uid": 1}}, Values(), ["k"])[1] == {
        "event": {"kind": "k"},
        "process": {"uid": 1},
        "host": {"name": "x"},
    }


WHOLE: dict[str, Any] = {"process": {"ancestors": []}, "health": {"lost": 0}}


def test_what_rules_read_and_is_not_there_is_told_and_not_decided() -> None:
    """No rule holds for a field that is not there: `allow` would only look like a decision."""
    text = event("a") + event("b", **WHOLE) + b'{"event": {"kind": "x.y", "nam": "a"}, "process": {}, "health": {}}'
    first, second, third = answers(text, partial=False)
    assert second["action"] == "allow"
    assert first["error"] == (
        "does not say what rules read of x.y: health, process; add it, or decide without it by --partial"
    )
    assert "ancestors, event.name, health.lost;" in third["error"]
    assert not {"action", "rules"} & (first.keys() | third.keys())
    first, second, third = answers(text)
    assert (rules(first), first["lacking"]) == (["A"], ["health", "process"])
    assert "lacking" not in second
    assert third["lacking"] == ["ancestors", "event.name", "health.lost"]


def test_a_line_that_names_what_another_tells_leads_there() -> None:
    (found,) = answers(event("a", process={}, given={"health": "x", "ancestors": "y"}), partial=False)
    assert "health, ancestors; give the lines before, too, one of which tells it, or" in found["error"]


def test_a_value_that_no_event_has_is_told() -> None:
    bad = json.dumps({"kind": "x.y", "event": {"name": 5}, **WHOLE}).encode()
    for partial in (False, True):
        (found,) = answers(bad, partial=partial)
        assert found["error"] == "event.name is not a value that such an event has: input should be a valid string"


def test_what_no_rule_reads_need_not_be_there() -> None:
    found = answers(event("a"), partial=False, rego=RULES[: RULES.index('rules contains {"id": "H"')])
    assert rules(found[0]) == ["A"]


def test_the_command(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "krie.toml").write_text("[plugins.runtime_integrity]\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "p.rego").write_text(RULES)
    command = [
        sys.executable,
        "-I",
        "-c",
        "from krie.cli.main import main; main()",
        "policy",
        "eval",
        "--partial",
        "--policy",
        "site",
    ]
    kind = "runtime_integrity.ptrace"
    lines = event("a", kind) + b"{\n" + event("b", kind)
    ran = subprocess.run(command, cwd=tmp_path, input=lines, capture_output=True, timeout=60)
    told = [json.loads(each) for each in ran.stdout.splitlines()]
    assert [(each["line"], "error" in each) for each in told] == [(1, False), (2, True), (3, False)], ran.stderr
    assert ran.returncode == 4
    apart = event("a", kind) + b"\r\n\n" + event("b", kind)
    ran = subprocess.run(command, cwd=tmp_path, input=apart, capture_output=True, timeout=60)
    assert [json.loads(each)["line"] for each in ran.stdout.splitlines()] == [1, 4], ran.stderr
    for given in ((), ("--lines",)):
        whole = [each for each in [*command, *given] if each != "--partial"]
        ran = subprocess.run(whole, cwd=tmp_path, input=event("a", kind), capture_output=True, timeout=60)
        said = b"does not say what rules read of runtime_integrity.ptrace: health, event.operation, "
        assert said in (ran.stdout + ran.stderr)
        assert (ran.returncode, b"allow" in ran.stdout) == (4, False)
    no_policy = subprocess.run(
        [*command, "--policy", "nosuch"], cwd=tmp_path, input=b"", capture_output=True, timeout=60
    )
    assert b"krie: nosuch: there is no such folder or bundle" in no_policy.stderr  # the event is not at fault
    one = subprocess.run([*command, "--lines"], cwd=tmp_path, input=event("a", kind), capture_output=True, timeout=60)
    assert (one.returncode, rules(json.loads(one.stdout))) == (0, ["A"])
    for given in ((), ("--lines",)):  # no rule is about such an event, and `allow` would look like a decision
        no_such = event("a", "runtime_integrity.ptrac")
        ran = subprocess.run([*command, *given], cwd=tmp_path, input=no_such, capture_output=True, timeout=60)
        assert b"no loaded plugin has the kind 'runtime_integrity.ptrac'; did you mean runtime_integrity.ptrace" in (
            ran.stdout + ran.stderr
        )
        assert (ran.returncode, b"allow" in ran.stdout) == (4, False)
    assert answers(event("a", "nothing"))[0]["error"] == (
        "no loaded plugin has the kind 'nothing'; krie events lists the kinds"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"event": {"kind": "a.b", "n": 1' + b"0" * 5000 + b"}}", "Exceeds the limit"),
        (b'{"event": {"kind": "a.b", "n": NaN}}', "NaN is not a JSON number"),
        (b'{"event": {"kind": "a.b", "n": 1, "n": 2}}', "a key is there twice"),
        (b"[]", "not an object"),
        (b" \n", "<stdin>: is empty: give it an event, such as a line of the journal"),
    ],
)
def test_one_document_is_read_as_strictly_as_a_line(text: bytes, why: str) -> None:
    engine = EmbeddedEngine(PolicySources((PolicyFile("p.rego", RULES),), {}, "r"))
    with pytest.raises(PolicyError, match=why):
        _read(_object(text), reading(engine, partial=True))


@pytest.mark.parametrize("arguments", [("eval",), ("eval", "--lines"), ("replay", "-")])
@pytest.mark.parametrize(("how", "told"), [("<&-", "is closed"), ("0>out", "is only for writing")])
def test_a_standard_input_that_cannot_be_read(tmp_path: Path, arguments: tuple[str, ...], how: str, told: str) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "krie.toml").write_text("[plugins.runtime_integrity]\n")
    command = [sys.executable, "-I", "-c", "from krie.cli.main import main; main()", "policy", *arguments]
    ran = subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (2, f"krie: <stdin>: {told}; give it lines of the journal\n")
