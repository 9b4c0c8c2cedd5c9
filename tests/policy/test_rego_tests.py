"""`krie policy test`: what it runs, where it says that something is wrong, and that both engines agree."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.config import PolicyConfig
from krie.errors import ExitCode, PolicyError
from krie.policy.sources import PolicyFile, PolicySources, read_sources
from krie.review.rego_tests import Run, differences, read_tests
from krie.review.rego_tests_embedded import run_embedded
from krie.review.rego_tests_opa import run_opa

ROOT = Path(__file__).parents[2]
OPA = str(ROOT / ".cache/tools/opa")
SHIPPED = [ROOT / "policies" / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
RULES = """package krie.site

rules contains {"id": "SITE", "action": "log"} if {
	input.event.kind == "a.b"
	small
}

small if input.event.number < data.limit

never if input.event.kind == "x.y"
"""
# Before the other by name, in the same package: see `rego_tests_embedded`.
FIRST = (
    'package krie.site\n\nimport input.event as e\n\nrules contains {"id": "FIRST", "action": "log"} if e.kind == "q"\n'
)
TESTS = """package krie.site_test

import data.krie.site

fired(number) := {rule.id | some rule in site.rules} with input as {"event": {"kind": "a.b", "number": number}}

test_small if fired(1) == {"SITE"}

test_large if fired(10) == set()

test_data if fired(8) == {"SITE"} with data.limit as 9
"""
TESTS = TESTS.replace("fired(number) := {", "fired(number) := ids if ids := {")
WRONG = """package krie.more_test

import data.krie.site

test_wrong if site.small with input as {"event": {"number": 100}}

todo_test_later if false
"""


def sources(*texts: str) -> PolicySources:
    files = tuple(PolicyFile(f"/p/{number}.rego", text, "/p") for number, text in enumerate(texts))
    return PolicySources(files, {"limit": 5}, "r")


def both(found: PolicySources, *texts: str) -> tuple[Run, Run]:
    tests = [PolicyFile(f"/p/{number}_test.rego", text, "/p") for number, text in enumerate(texts)]
    return run_embedded(found, tests, PolicyConfig()), run_opa(OPA, found, tests)


def test_all_shipped_tests_pass_in_both_engines() -> None:
    found = read_sources(SHIPPED, {"executables": {}})
    tests = read_tests(SHIPPED)
    here, there = run_embedded(found, tests, PolicyConfig()), run_opa(OPA, found, tests)
    assert here.failed == there.failed == ()
    assert differences(here, there) == []
    assert len(here.results) > 150
    assert all(run.percent is not None and run.percent > 95 for run in (here, there))


def test_files_of_one_package_and_helpers_under_with() -> None:
    for run in both(sources(FIRST, RULES), TESTS):
        assert run.failed == ()
        assert [each.name for each in run.results] == ["test_small", "test_large", "test_data"]
        assert run.results[0].place == "/p/0_test.rego:7"


def test_what_fails_and_what_is_not_reached() -> None:
    runs = both(sources(RULES), TESTS, WRONG)
    for run in runs:
        assert [(each.package, each.name, each.place) for each in run.failed] == [
            ("krie.more_test", "test_wrong", "/p/1_test.rego:5")
        ]
    assert differences(*runs) == []
    assert runs[1].percent is None
    here, there = both(sources(RULES), TESTS)
    assert there.missed["/p/0.rego"] == {10}
    for run in (here, there):
        assert {4, 5, 8} <= run.covered["/p/0.rego"]
    assert there.percent == 80.0


def test_what_only_one_engine_says() -> None:
    text = 'package krie.odd_test\n\ntest_odd if count(net.cidr_merge(["10.0.0.0/8"])) == 1\n'
    here, there = both(sources(RULES), text)
    assert [each.key for each in here.failed] == [("krie.odd_test", "test_odd")]
    assert differences(here, there) == ["krie.odd_test.test_odd: embedded fails, opa passes"]
    assert "/p/0_test.rego:3:" in here.failed[0].why


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("package krie.x_test\n\ntest_x if {\n", r"^/p/0_test.rego:\d"),
        ("test_x if true\n", "^/p/0_test.rego:1: does not begin with its package"),
        ("package krie.x_test\nf(x) := f(x)\ntest_x if f(1)\n", "the tests cannot be run: the process that did"),
        (
            "package krie.x_test\ntest_x if count([1 | some i in numbers.range(1, 9000); "
            "some j in numbers.range(1, 9000); i == j + 5000]) == 5\n",
            "the tests cannot be run: the process that did was ended",
        ),
    ],
)
def test_tests_that_do_not_compile_or_do_not_end(text: str, problem: str) -> None:
    tests = [PolicyFile("/p/0_test.rego", text, "/p")]
    with pytest.raises(PolicyError, match=problem):
        run_embedded(sources(RULES), tests, PolicyConfig(load_s=2))


def test_one_name_for_two_things() -> None:
    texts = [f"package krie.x_test\nimport input.{name} as e\ntest_{name} if not e\n" for name in "ab"]
    with pytest.raises(PolicyError, match=r"import input.a and input.b by the same name, e"):
        both(sources(RULES), *texts)


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        ("exit 3", "opa test: ended with code 3: it said nothing"),
        ("echo oh >&2; exit 1", "opa test: ended with code 1: oh"),
        ("echo '[{}]'", "its answer has another shape"),
        ("echo '5'", "its answer has another shape"),
    ],
)
def test_an_opa_that_cannot_run_them(tmp_path: Path, does: str, problem: str) -> None:
    opa = tmp_path / "opa"
    opa.write_text(f"#!/bin/sh\n{does}\n")
    opa.chmod(0o755)
    with pytest.raises(PolicyError, match=problem):
        run_opa(str(opa), sources(RULES), [PolicyFile("/p/0_test.rego", TESTS, "/p")])


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/site.rego").write_text(RULES)
    (tmp_path / "site/limit.json").write_text('{"limit": 5}')
    (tmp_path / "site/site_test.rego").write_text(TESTS)
    (tmp_path / "krie.toml").write_text(f'[policy]\npaths = ["site"]\nopa = "{OPA}"\n')

    def run(*options: str) -> tuple[int, str]:
        answer = CliRunner().invoke(policy_command, ["test", "--config", str(tmp_path / "krie.toml"), *options])
        return answer.exit_code, answer.output

    code, shown = run("--engine", "both", "--json")
    answer: dict[str, Any] = json.loads(shown)
    assert (code, answer["passed"], answer["differences"]) == (ExitCode.OK, True, [])
    assert [each["engine"] for each in answer["runs"]] == ["embedded", "opa"]
    assert answer["runs"][1]["files"][f"{tmp_path}/site/site.rego"]["not_reached"] == [10]
    code, shown = run("--engine", "opa", "--threshold", "100")
    assert code == ExitCode.POLICY
    assert "are less than 100 %" in shown
    (tmp_path / "site/more_test.rego").write_text(WRONG)
    code, shown = run()
    assert code == ExitCode.POLICY
    assert f"{tmp_path}/site/more_test.rego:5: krie.more_test.test_wrong (embedded): is not true" in shown
