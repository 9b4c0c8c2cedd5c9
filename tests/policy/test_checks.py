"""What OPA's checker refuses, KRIe refuses too, with its place; what OPA accepts, KRIe accepts: compared with `opa`."""

import json
import re
import runpy
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any

import pytest
import regorus
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources

from .generated import Module
from .idioms import IDIOMS
from .refused import (
    ARGUMENTS,
    BELOW,
    FUNCTIONS,
    HEADS,
    NAMES,
    RECURSION,
    TYPES,
    VARIABLES,
    WITH,
    with_body,
    with_more,
)

ROOT = Path(__file__).parents[2]
OPA = ROOT / ".cache/tools/opa"
TABLE = ROOT / "core/policy/checks/builtins.json"
DATA: dict[str, Any] = {
    "limits": [1, 2, 3],
    "named": {"a": 1, "b": 2},
    "pairs": [[1, 1], [1, 2]],
    "objects": [{"a": 1}],
    "flags": ["stack_user"],
    "deep": {"one": {"two": 5}, "none": None},
}
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


def compile_(*texts: str, data: dict[str, Any] | None = None) -> EmbeddedEngine:
    files = tuple(PolicyFile(f"p{number}.rego", text) for number, text in enumerate(texts))
    return EmbeddedEngine(PolicySources(files, DATA if data is None else data, "r"))


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


TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|[A-Za-z_]\w*|:=|==|!=|\d+|\s+|.', re.DOTALL)
NAME = re.compile(r"[A-Za-z_]\w*")
PUT = ("x", "y", "_", "input", "data", "count", "f", "5", '"a"', "[1]", "{1}", "true", "null")


def damaged(random: Random, text: str) -> str:
    """One token of the policy is another one, or has something behind it."""
    tokens = TOKENS.findall(text)
    names = [number for number, each in enumerate(tokens) if NAME.fullmatch(each)]
    at = random.choice(names[6:])  # behind the package's name and the rule's
    how = random.randrange(4)
    tokens[at] = (random.choice(PUT), tokens[random.choice(names[6:])], tokens[at] + "(1)", tokens[at] + ".a")[how]
    return "".join(tokens)


class Checker:
    """Asks OPA's compiler about one text after the other: a process for each would take ten times as long."""

    def __init__(self, socket_: Path) -> None:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(str(socket_))
        except OSError:
            connected.close()
            raise
        self._connection = HTTPConnection("opa", timeout=60)
        self._connection.sock = connected

    def close(self) -> None:
        self._connection.close()

    def accepts(self, text: str) -> bool:
        self._connection.request("PUT", "/v1/policies/p", text.encode())
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 200


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    folder = tmp_path_factory.mktemp("server")
    command = [
        str(OPA),
        "run",
        "--server",
        "--addr",
        f"unix://{folder}/s",
        "--disable-telemetry",
        "--log-level",
        "error",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    found = Checker(folder / "s")
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < end
                    time.sleep(0.01)
            yield found
            found.close()
        finally:
            server.kill()


STRICTER_BY_DESIGN = re.compile(
    r"recursive|used before it is declared|begins with `\{ TERM|a rule here and an import|must be literals?|"
    r"write `rules|exists already at|variable _ is unsafe"
)
"""What KRIe refuses of what OPA accepts, for the embedded engine's sake or as its own convention: see STRICTER."""


def engine_refuses(text: str) -> bool:
    """Whether the embedded engine's own parser does."""
    try:
        regorus.Engine().add_policy("p", text)
    except RuntimeError:
        return True
    return False


def disagreements(texts: Iterable[str], checker: Checker) -> tuple[list[str], int]:
    """Texts that OPA and KRIe judge differently, with what KRIe says, and how many both accept."""
    found, accepted = [], 0
    for text in texts:
        theirs, mine = checker.accepts(text), ""
        try:
            compile_(text)
        except PolicyError as error:
            mine = str(error)
        accepted += theirs and not mine
        if theirs == bool(mine) and not (theirs and (STRICTER_BY_DESIGN.search(mine) or engine_refuses(text))):
            found.append(f"{text}\nOPA: {theirs}, KRIe: {mine}")
    return found, accepted


def test_randomly_damaged_policies_are_judged_as_opa_does(checker: Checker) -> None:
    random = Random(5)
    corpus = [text for text in IDIOMS.values() if "print(" not in text]  # which OPA's server drops unread
    found, accepted = disagreements((damaged(random, random.choice(corpus)) for _ in range(600)), checker)
    assert found == []
    assert 150 < accepted < 450


def test_random_modules_are_judged_as_opa_does(checker: Checker) -> None:
    random = Random(9)
    found, accepted = disagreements((Module(random).text for _ in range(2000)), checker)
    assert found == []
    assert accepted > 300


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
    ],
)
def test_messages_say_what_and_how_to_mend(text: str, message: str) -> None:
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


ONE, OTHER = "input.process", "input.process.parent"


def importing(target: str, id_: str) -> str:
    head = f'{{"id": "{id_}", "action": "kill"}}'
    return f"package krie.site\nimport {target} as p\n\nrules contains {head} if p.tgid == 1\n"


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_one_name_for_two_imports_is_refused_with_both_places(order: int) -> None:
    texts = [importing(ONE, "A"), importing(OTHER, "B")][::order]
    with pytest.raises(
        PolicyError, match=r"^p1.rego:2: p is input\.process.* here and input\.process.* at p0.rego:2: "
    ):
        compile_(*texts)


def test_one_name_for_one_import_in_two_files_and_for_two_in_two_packages() -> None:
    compile_(importing(ONE, "A"), importing(ONE, "B"))
    compile_(importing(ONE, "A"), importing(OTHER, "B").replace("krie.site", "krie.other"))


def test_a_name_that_the_last_part_of_an_import_gives() -> None:
    implicit = importing(OTHER, "A").replace(" as p", "").replace("p.tgid", "parent.tgid")
    with pytest.raises(PolicyError, match=r"^p1.rego:2: parent is .* at p0.rego:2"):
        compile_(
            implicit, importing("data.limits", "B").replace(" as p", " as parent").replace("p.tgid == 1", "1 in parent")
        )


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_an_import_and_a_rule_of_one_name_are_refused_with_both_places(order: int) -> None:
    texts = [importing(ONE, "A"), "package krie.site\np := 7\n"][::order]
    places = {1: ("p1.rego:2", "p0.rego:2"), -1: ("p0.rego:2", "p1.rego:2")}[order]
    with pytest.raises(PolicyError, match=rf"^{places[0]}: p is a rule here and an import at {places[1]}: rename one"):
        compile_(*texts)


def test_an_import_is_its_file_s_only() -> None:
    other = 'package krie.site\nrules contains {"id": "B", "action": "log"} if {\n\tp.uid == 1\n}\n'
    with pytest.raises(PolicyError, match=r"^p1.rego:3:2: variable p is unsafe"):
        compile_(importing(ONE, "A"), other)


def test_variables_and_arguments_may_have_the_name_of_another_file_s_import() -> None:
    text = "package krie.site\nf(p) := p\nu := x if {\n\tp := 7\n\tx := f(p)\n}\n"
    for texts in ((importing(ONE, "A"), text), (text, importing(ONE, "A"))):
        compile_(*texts)


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
