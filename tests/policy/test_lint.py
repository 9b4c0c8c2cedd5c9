"""`krie policy lint`: all checkers in one report, with places; what did not look is said."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.review.findings import KRIE, OPA, REGAL

from .linted import FINE, MANY, install, report, run, told


def test_a_clean_policy(repository: Path) -> None:
    install(repository, "opa", "regal")
    found = report("opa", "regal")
    assert (found.findings, [each.why for each in found.looked]) == ((), ["", "", ""])
    result = run("--require", "opa,regal")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 errors")


def test_each_checker_tells_what_it_finds_and_where(repository: Path) -> None:
    install(repository, "opa", "regal")
    (repository / "policies/site.rego").write_text(MANY + "\nlater(x) if {\n\ty := 1\n\tx == 2\n\ty == 1\n}\n")
    found = report()
    assert told(found, KRIE) == [
        ("policies/site.rego:5:35", "metadata"),
        ("policies/site.rego:8:2", "meaning"),
        ("policies/site.rego:9:2", "meaning"),
    ]
    assert told(found, OPA) == [
        ("policies/site.rego:8:2", "type-error"),
        ("policies/site.rego:9:2", "type-error"),
        ("policies/site.rego:10:2", "compile-error"),
    ]
    assert ("policies/site.rego:14:2", "performance/defer-assignment") in told(found, REGAL)
    by_place = {(str(each.place), each.tool): each for each in found.findings}
    assert by_place["policies/site.rego:8:2", OPA].fix == "did you mean name?"
    assert by_place["policies/site.rego:9:2", OPA].what == "match error: number and string"
    assert by_place["policies/site.rego:8:2", KRIE].rule == "SITE001"
    assert all(each.fix for each in found.findings)
    assert run().exit_code == 4


def test_what_does_not_compile_is_told_by_both(repository: Path) -> None:
    install(repository, "opa", "regal")
    (repository / "policies/site.rego").write_text(FINE.replace("input.event.name", "nosuch(input.event.name)"))
    found = report()
    assert [place for place, _ in told(found, KRIE)] == ["policies/site.rego:8:2"]
    assert told(found, OPA) == [("policies/site.rego:8:2", "type-error")]
    assert {each.code for each in found.findings if each.tool == KRIE} == {"refused"}


def test_data_that_cannot_be_read(repository: Path) -> None:
    install(repository, "opa")
    (repository / "policies/x.json").write_text('{"a": 1,\n "a": 2}')
    found = report()
    (refused,) = told(found, KRIE)
    assert (refused[0].partition(":")[0], refused[1]) == ("policies/x.json", "refused")
    assert found.looked[1].why == "the policy could not be read"
    assert found.revision == ""


def test_folders_may_be_named(repository: Path) -> None:
    (repository / "other").mkdir()
    (repository / "other/site.rego").write_text(MANY)
    assert run().exit_code == 0
    result = run("other", "--json")
    assert result.exit_code == 4
    assert {each["file"] for each in json.loads(result.stdout)["findings"]} == {"other/site.rego"}


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["policies", "policies/runtime_integrity"])
def test_kries_own_policies_are_checked_in_a_clone(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and not beside themselves; by regal, too, which does not look at them unless they are named."""
    monkeypatch.chdir(ROOT)
    found = run(path, "--require", "opa,regal", "--json")
    told = json.loads(found.stdout)
    assert (found.exit_code, told["findings"]) == (0, [])
    left_out = "no plugin of package krie.cfi is loaded: krie and opa did not check its rules"
    assert told["notes"] == ([left_out] if path == "policies" else [])
    assert run().exit_code == 0


def test_a_copy_of_kries_own_policies_is_checked_in_their_place(repository: Path) -> None:
    install(repository, "opa", "regal")
    shutil.copytree(ROOT / "policies", repository / "copy")
    copied = run("copy", "--require", "opa,regal", "--json")
    told = json.loads(copied.stdout)
    assert (copied.exit_code, told["findings"]) == (0, [])
    assert told["notes"][0].startswith(f"copy stands for {ROOT}/policies/agent, {ROOT}/policies/runtime_integrity")
    assert [each.split()[4] for each in told["notes"][1:]] == ["krie.cfi", "krie.smep_smap", "krie.syscall_table"]
    shown = run("copy").stdout
    for note in told["notes"]:
        assert f"note  {note}" in shown
    rules = repository / "copy/runtime_integrity/ptrace.rego"
    rules.write_text(rules.read_text().replace("input.event.operation", "input.event.opertion"))
    for path in ("copy", "copy/runtime_integrity"):
        places = [each["file"] for each in json.loads(run(path, "--json").stdout)["findings"]]
        assert "copy/runtime_integrity/ptrace.rego" in places, path
    # Beside KRIe's own rules no agent takes it, nor anything else of a package that KRIe has.
    (repository / "krie.toml").write_text('[policy]\npaths = ["copy"]\n[plugins.runtime_integrity]\n')
    assert "refused" in run().stdout
    (repository / "policies/site.rego").write_text(FINE.replace("krie.site", "krie.runtime_integrity"))
    assert "refused" in run("policies").stdout
    (repository / "copy/agent/new.rego").write_text("package krie.new\n\nrules contains 5\n")
    assert "copy/agent/new.rego" in run("copy").stdout


def test_a_folder_that_does_not_exist_is_one_clear_error(repository: Path) -> None:
    install(repository, "opa", "regal")
    result = run("policies", "nosuch")
    lines = result.stdout.splitlines()
    assert result.exit_code == 4
    assert lines[0] == "nosuch: error: there is no such folder of policies [krie/refused]"
    assert lines[5] == "regal did not look: nosuch is not a folder"


def test_what_only_follows_comes_behind_its_cause(repository: Path) -> None:
    wrong = FINE.replace('input.event.name == "kernel/x"', 'input.event.change == "lowr"')
    (repository / "policies/site.rego").write_text(wrong)
    assert [code for _, code in told(report(), KRIE)] == ["meaning", "never"]
    checked = CliRunner().invoke(policy_command, ["check", "--json"])
    assert [each["code"] for each in json.loads(checked.stdout)["warnings"]] == ["meaning", "never"]


def test_a_file_is_told_to_be_no_folder(repository: Path) -> None:
    (repository / "site.rego").write_text(MANY)
    (found, *_) = json.loads(run("site.rego", "--json").stdout)["findings"]
    assert (found["file"], found["what"]) == ("site.rego", "is not a folder; name the folder that it is in")


def test_links_out_of_the_folder_are_told(repository: Path) -> None:
    outside = repository / "outside"
    outside.mkdir()
    (outside / "more.rego").write_text("package krie.more\n")
    for name, leads in (("a.rego", outside / "more.rego"), ("b", outside), ("inside.rego", "c/real.rego")):
        (repository / "policies" / name).symlink_to(leads)
    (repository / "policies/c").mkdir()
    (repository / "policies/c/real.rego").write_text("package krie.real\n")
    (repository / "policies/.git").symlink_to(outside)
    assert told(report(), KRIE) == [("policies/a.rego:1", "link"), ("policies/b:1", "link")]
    assert run().exit_code == 0  # a warning
