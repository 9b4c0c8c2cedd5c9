"""What OPA's checker refuses, KRIe refuses too, with its place; what OPA accepts, KRIe accepts: compared with `opa`."""

import json
import re
import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from krie.errors import PolicyError

from .checked import OPA, ROOT, compile_
from .idioms import IDIOMS
from .refused import ARGUMENTS, BELOW, FUNCTIONS, HEADS, NAMES, RECURSION, TYPES, VARIABLES, WITH, with_body, with_more

TABLE = ROOT / "core/policy/checks/builtins.json"
REFUSED = {
    f"{kind}: {name}": text
    for kind, cases in {
        "recursion": RECURSION,
        "functions": FUNCTIONS,
        "heads": HEADS,
        "variables": VARIABLES,
        "arguments": ARGUMENTS,
        "types": TYPES,
        "with": WITH,
        "below": BELOW,
        "names": NAMES,
    }.items()
    for name, text in cases.items()
}


@pytest.fixture(scope="module")
def opa(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Whether OPA accepts each policy."""
    folder = tmp_path_factory.mktemp("opa")

    def accepts(number: int, text: str) -> bool:
        (folder / f"{number}.rego").write_text(text)
        done = subprocess.run([OPA, "check", folder / f"{number}.rego"], capture_output=True, timeout=60)
        return done.returncode == 0

    cases = {**REFUSED, **IDIOMS}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(accepts, range(len(cases)), cases.values()), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_opa_refuses_is_refused_with_its_place(name: str, opa: dict[str, bool]) -> None:
    assert not opa[name]
    with pytest.raises(PolicyError, match=r"^p0.rego:\d+(:\d+)?: "):
        compile_(REFUSED[name])


@pytest.mark.parametrize("name", IDIOMS)
def test_what_opa_accepts_is_accepted(name: str, opa: dict[str, bool]) -> None:
    assert opa[name]
    compile_(IDIOMS[name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            RECURSION["two functions"],
            r"p0.rego:6:9: krie.s.f is recursive, .*: krie.s.f -> krie.s.g \(p0.rego:6:9\) -> krie.s.f \(p0.rego:7:9\)",
        ),
        (with_body('\tstartwith("a", "b")'), r"p0.rego:4:2: there is no function startwith; did you mean startswith\?"),
        (with_body("larg(1)", "large(x) if x > 1\n"), r"p0.rego:4:1: there is no function larg; did you mean large\?"),
        (FUNCTIONS["too few"], "p0.rego:4:1: startswith takes 2 arguments, not 1"),
        (FUNCTIONS["too many for its own"], r"p0.rego:4:1: data.krie.s.f takes 1 argument, not 3"),
        (VARIABLES["reckoned with"], "p0.rego:4:6: variable y is unsafe: nothing gives it a value"),
        (TYPES["of a rule's array"], "p0.rego:4:1: an array of 2 has no 5; count its elements from 0"),
        (TYPES["a number's key of an object"], "p0.rego:4:1: the object has no 1; it has a"),
        (TYPES["a key of an empty object"], "p0.rego:5:1: an empty object has no a; look there"),
        (
            TYPES["a function's argument by its body"],
            "p0.rego:4:1: argument 1 of data.krie.s.f is text; it must be a number",
        ),
        (TYPES["a text among numbers"], "p0.rego:4:1: looks for text in an array of 2, where it never is"),
        (WITH["walk"], "p0.rego:4:14: `with` cannot replace OPA's walk; replace what calls it"),
        (BELOW["a value by name"], "p0.rego:7: u.a.b lies below u.a, which is a value at p0.rego:6; rename one"),
        (NAMES["an argument declared"], "p0.rego:6:11: x is an argument already; rename one"),
        (NAMES["an import named input"], "p0.rego:2: an import cannot be named input; name it otherwise"),
        (HEADS["two arities"], "p0.rego:7: f is a function of 2 here and a function of 1 at p0.rego:6"),
        (with_body('crypto.sha256("x") == ""'), "p0.rego:4:1: .* does not have OPA's function crypto.sha256"),
        (
            with_body('http.send({"method": "get", "url": "u"}).status_code == 200'),
            "p0.rego:4:1: .* function http.send",
        ),
        (with_body('opa.runtime().env.HOME == "/root"'), "p0.rego:4:1: .* function opa.runtime"),
    ],
)
def test_messages_say_what_and_how_to_fix_it(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=f"^{message}"):
        compile_(text)


def test_the_table_of_functions_is_that_of_this_opa_and_engine() -> None:
    tool = runpy.run_path(str(ROOT / "tools/opa_builtins.py"))
    assert TABLE.read_text() == tool["written"](tool["table"](tool["capabilities"](OPA))), "run tools/opa_builtins.py"


STRICTER = {
    "a set for a body": (
        with_more("u if { {1} | {2} == {1, 2} }\n"),
        "p0.rego:6:8: begins with `{ TERM |`, which OPA takes for a set that always holds; put brackets around",
    ),
    "a set behind `else`": (
        with_more("u if { false } else := 1 if { input.x | input.y }\n"),
        "p0.rego:6:29: is a set, which always holds; write statements, one a line",
    ),
    "an outer variable that is hidden": (
        with_body("x := 1\ny := [x | x := x]\ny == [1]"),
        "p0.rego:5:11: variable x is used before it is declared; rename one",
    ),
    "a number's key of rules": (
        with_more("u[1] := u[2]\nu[2] := 1\n"),
        "p0.rego:6:9: krie.s.u is recursive, which Rego does not have",
    ),
    "a variable that `with` would find": (
        with_body("input.x with input.y as data.limits[_]"),
        "p0.rego:4:37: variable _ is unsafe: nothing gives it a value",
    ),
    "a variable's own key": (with_body("x = {x: 1}\nx == 1"), "p0.rego:4:1: variable x is unsafe"),
    "what OPA makes of `in`": (
        with_body("internal.member_2(1, [1])"),
        "p0.rego:4:1: internal.member_2 is what OPA makes of an operator; write the operator, such as `in`",
    ),
    "an import of a rule's name": (
        with_body("v == 1", "v := 1\n").replace("krie.s\n", "krie.s\nimport input.v\n"),
        "p0.rego:7: v is a rule here and an import at p0.rego:2",
    ),
}


@pytest.mark.parametrize("name", STRICTER)
def test_what_the_engine_takes_for_something_else_is_refused_though_opa_accepts_it(name: str, tmp_path: Path) -> None:
    text, message = STRICTER[name]
    (tmp_path / "p.rego").write_text(text)
    assert subprocess.run([OPA, "check", tmp_path / "p.rego"], capture_output=True, timeout=60).returncode == 0
    with pytest.raises(PolicyError) as caught:
        compile_(text)
    assert str(caught.value).startswith(message)


def test_recursion_through_two_packages() -> None:
    texts = ["package krie.a\nu := data.krie.b.v\n", "package krie.b\nimport data.krie.a\nv := a.u\n"]
    with pytest.raises(PolicyError, match=r"p0.rego:2:6: krie.a.u is recursive"):
        compile_(*texts)
    compile_(texts[0], "package krie.b\nv := 1\n")


def test_a_function_of_another_package_is_known() -> None:
    helper = "package krie.lib\nlarge(x) if x > 5\n"
    user = with_body("lib.large(input.event.n)").replace("krie.s\n", "krie.s\nimport data.krie.lib\n")
    compile_(user, helper)
    with pytest.raises(PolicyError, match="p0.rego:5:1: data.krie.lib.large takes 1 argument, not 3"):
        compile_(user.replace("large(input.event.n)", "large(1, 2, 3)"), helper)
    with pytest.raises(PolicyError, match="there is no function data.krie.lib.larg; did you mean data.krie.lib.large?"):
        compile_(user.replace("large", "larg"), helper)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 400 + "1" + ")" * 400,
        " + ".join(["1"] * 3000),
        "input.event" + ".a" * 3000,
        "f(\n" * 300 + "1" + ")\n" * 300,
        "input.event" + "[\n1]" * 500,
        "\n+ ".join(["1"] * 600),
    ],
    ids=["brackets", "sum", "path", "calls", "indices", "long sum"],
)
def test_nesting_without_end_is_one_error_or_none(expression: str) -> None:
    text = with_body(f"x := {expression}\nx == x", "f(x) := x\n")
    try:
        compile_(text)
    except PolicyError as error:
        assert re.match(r"p0.rego:\d+", str(error)), error


def test_many_rules_in_a_row_are_no_recursion_for_the_check() -> None:
    chain = "".join(f"r{number} if r{number + 1}\n" for number in range(3000))
    compile_(with_more(f"{chain}r3000 := true\n"))
    with pytest.raises(PolicyError, match="is recursive"):
        compile_(with_more(f"{chain}r3000 if r0\n"))


def test_json_of_the_table_has_only_known_types() -> None:
    def known(type_: Any) -> bool:
        if isinstance(type_, list):
            return all(map(known, type_))
        if isinstance(type_, dict):
            if "object" in type_:
                return set(type_) <= {"object", "others"} and all(
                    map(known, (*type_["object"].values(), *type_.get("others", ())))
                )
            return set(type_) <= {"array", "set", "tuple"} and all(map(known, type_.values()))
        return type_ in {"any", "string", "number", "boolean", "null", "object"}

    for name, row in json.loads(TABLE.read_text()).items():
        assert all(map(known, [*row["arguments"], row["result"]])), name
