"""What the engines decide otherwise, since part of an expression is undefined, is told; what they decide alike is not.

Expressions are generated, and a real `opa` is asked.
"""

import json
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.review.warnings import warnings

from ..unit.opa_servers import BINARY
from .warned import CONFIG, DOCUMENTS, PTRACE, SYSCTL, plugins, told

HELPERS = """
unknown := 1 if input.process.uid == 4242
one := 1
list := [1, 2]
named := {"a": 1}
nobody(x) := x if x == 4242
same(x) := x
yes(x) if x
no(x) if x == false
"""
MAY_BE_UNDEFINED = (
    "unknown",
    "list[7]",
    "nobody(9)",
    "named[unknown]",
    "count([unknown])",
    "same(unknown)",
    "unknown + 1",
    "object.get(named, unknown, 1)",
    "[x | x := unknown][0]",
    "data.limits[9]",
    "input.event.change",
)
"""The last: events of another kind have none."""
IS_THERE = ("one", "same(1)", "one + 1", "count([one])", "object.get(named, one, 1)", "input.process.uid")
FORMS = (
    "not {} in {{1, 2}}",
    "not {} in [3]",
    "not 1 in [{}]",
    "not 1, {} in [1, 2]",
    "not ({} in {{1}})",
    "not {} != 1",
    "not {} > 5",
    "not {} == 1",
    "not {} = 1",
    "not 1 == {}",
    "not {} == unknown",
    "not {} - 1 == 0",
    "not {{{}}} == {{1}}",
    'not {{"a": {}}} == {{}}',
    "not [{}] == [1]",
    "not {{{}}} | {{1}} == {{1}}",
    "not yes({})",
    "not same({}) == 1",
    "not list[{}]",
    "not {}",
    "not -1 == {} * 2",
    "not is_null({})",
    "({} in {{3}}) == false",
    "found := {} in {{3}}\nfound == false",
    "found := ({} in {{3}})\nfound == false",
    "no({} in {{3}})",
    "[{} in {{3}}] == [false]",
    "count([1 | not {} in {{3}}]) == 1",
    "[({} in {{3}}) | true] == [false]",
    "({} == 3) == false",
    "{} in {{1, 2}}",
    "{} != 3",
    "every x in [1] {{ not {} in {{3}} }}",
    "every x in [{}] {{ x == 1 }}",
    "helper == false\nhelper := {} in {{3}}",
)


def policy(at: int, condition: str) -> str:
    body, _, more = condition.partition("\nhelper :=")
    more = f"helper :={more}\n" if more else ""
    lines = "".join(f"\t{line}\n" for line in body.split("\n"))
    return f'package krie.s{at}\n\nrules contains {{"id": "R", "action": "log"}} if {{\n{lines}}}\n{HELPERS}{more}'


DATA: dict[str, Any] = {**DOCUMENTS, "limits": [1]}
INPUT = {"event": {"kind": PTRACE}, "process": {"uid": 5}}


def by_opa(folder: Path, texts: dict[int, str]) -> dict[int, bool]:
    """Which of the policies fire; those that OPA refuses are left out."""
    (folder / "p").mkdir()
    for at, text in texts.items():
        (folder / f"p/{at}.rego").write_text(text)
    while True:
        check = subprocess.run([BINARY, "check", "--max-errors", "0", "-f", "json", folder / "p"], capture_output=True)
        if not check.returncode:
            break
        for each in {error["location"]["file"] for error in json.loads(check.stderr or check.stdout)["errors"]}:
            Path(each).unlink()
    (folder / "input.json").write_text(json.dumps(INPUT))
    (folder / "data.json").write_text(json.dumps(DATA))
    asked: list[str | Path] = [
        BINARY,
        "eval",
        "-d",
        folder / "p",
        "-d",
        folder / "data.json",
        "-i",
        folder / "input.json",
        "data.krie",
    ]
    result = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    answers = result["result"][0]["expressions"][0]["value"]
    return {int(file.stem): bool(answers[f"s{file.stem}"]["rules"]) for file in (folder / "p").iterdir()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, bool, EmbeddedEngine]]:
    """By condition: whether it holds here, and in OPA."""
    conditions = [form.format(part) for form, part in product(FORMS, (*MAY_BE_UNDEFINED, *IS_THERE))]
    engines: dict[int, EmbeddedEngine] = {}
    here: dict[int, bool] = {}
    for at, condition in enumerate(conditions):
        sources = PolicySources((PolicyFile("p.rego", policy(at, condition)),), DATA, "r")
        try:
            engines[at] = EmbeddedEngine(sources)
        except PolicyError:  # of a type that this cannot be compared with
            continue
        (answer,) = engines[at].evaluate(engines[at].packages, json.dumps(INPUT))
        if not isinstance(answer, str):  # an argument of a wrong type is reported by both
            here[at] = bool(answer)
    there = by_opa(tmp_path_factory.mktemp("opa"), {at: policy(at, conditions[at]) for at in here})
    return {conditions[at]: (here[at], fires, engines[at]) for at, fires in there.items()}


def is_told(engine: EmbeddedEngine) -> bool:
    return any("is undefined" in each.what for each in warnings(engine, CONFIG, plugins()))


def test_all_that_differs_is_told(cases: dict[str, tuple[bool, bool, EmbeddedEngine]]) -> None:
    differ = {condition: each for condition, each in cases.items() if each[0] != each[1]}
    assert len(cases) > 400
    assert len(differ) > 150
    untold = [condition for condition, (*_, engine) in differ.items() if not is_told(engine)]
    assert untold == []


def test_what_is_always_there_is_not_told(cases: dict[str, tuple[bool, bool, EmbeddedEngine]]) -> None:
    wrong = [
        condition
        for condition, (here, there, engine) in cases.items()
        if not any(each in condition for each in (*MAY_BE_UNDEFINED, "unknown")) and (here != there or is_told(engine))
    ]
    assert wrong == []


def test_the_place_and_the_remedy_are_told() -> None:
    text = (
        "package krie.site\n\n"
        f'rules contains {{"id": "R1", "action": "log"}} if {{\n\tinput.event.kind == "{SYSCTL}"\n'
        "\tnot owner in {1, 2}\n}\n\nowner := 5 if input.process.uid == 0\n"
    )
    (found,) = told(text)
    assert str(found) == (
        "p0.rego:5:6: rule R1: where owner is undefined, `not` holds in the embedded engine, and not in OPA; "
        "say what is negated or compared in a rule of its own, and use that"
    )
    fixed = text.replace("not owner in {1, 2}", "not known") + "\nknown if owner in {1, 2}\n"
    assert told(fixed) == []
