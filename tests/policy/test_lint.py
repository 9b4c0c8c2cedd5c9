"""`krie policy lint`: all checkers in one report, with places; what did not look is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from krie.cli.policy import policy as policy_command
from krie.config import Config, load_config
from krie.plugin.offline import load_plugins
from krie.review.findings import KRIE, OPA, REGAL, Report
from krie.review.input_schemas import event_schemas, file_of, kinds_of
from krie.review.lint import lint
from krie.tier.tried import tried_engine

TOOLS = Path(__file__).parents[2] / ".cache/tools"
FINE = """package krie.site

# METADATA
# title: A value of this site was written
# custom: {id: SITE001, severity: low, action: log}
rules contains {"id": "SITE001", "action": "log"} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.name == "kernel/x"
}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of policies, which is the working folder; no tool lies beside it or in PATH."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/site.rego").write_text(FINE)
    (tmp_path / "bin").mkdir()
    configure(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(repository: Path, more: str = "") -> None:
    text = f'[policy]\npaths = ["policies"]\n{more}\n[plugins.runtime_integrity]\n'
    (repository / "krie.toml").write_text(text)


def install(repository: Path, *names: str) -> None:
    folder = repository / ".cache/tools"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).symlink_to(TOOLS / name)


def fake(repository: Path, name: str, body: str) -> None:
    path = repository / "bin" / name
    path.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{body}\n")
    path.chmod(0o755)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(policy_command, ["lint", *arguments])


def report(*required: str) -> Report:
    place = Path("krie.toml")
    config = load_config(place)
    return lint(config, place, load_plugins(config, str(place))[0], required)


def told(found: Report, tool: str) -> list[tuple[str, str]]:
    return [(str(each.place), each.code) for each in found.findings if each.tool == tool]


def test_a_clean_policy(repository: Path) -> None:
    install(repository, "opa", "regal")
    found = report("opa", "regal")
    assert (found.findings, [each.why for each in found.looked]) == ((), ["", "", ""])
    result = run("--require", "opa,regal")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 errors")


MANY = FINE.replace("severity: low", "severity: hihg").replace(
    '	input.event.name == "kernel/x"\n',
    '	input.event.nmae == "kernel/x"\n	input.event.new_int == "0"\n	unused := 5\n',
)


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


@pytest.mark.parametrize(("required", "code"), [((), 0), (("regal",), 4), (("opa", "regal"), 4)])
def test_who_is_not_installed_is_said_and_may_be_required(
    repository: Path, required: tuple[str, ...], code: int
) -> None:
    found = report(*required)
    assert [bool(each.why) for each in found.looked] == [False, True, True]
    assert told(found, KRIE) == [("krie.toml", "not-run")] * len(required)
    result = run("--require", ",".join(required))
    assert result.exit_code == code
    assert "opa   did not look: no opa is installed" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("did not look: opa, regal")


def test_a_tool_that_nobody_knows_is_not_required(repository: Path) -> None:
    result = run("--require", "opa,ruff")
    assert result.exit_code == 2
    assert "ruff is no tool; known are opa, regal" in result.output


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo oh >&2; exit 7", "ended with code 7: oh"),
        ('echo \'{"errors": [{"location": {}}]}\' >&2; echo \'{"violations": [{}]}\'; exit 1', "ended with code 1: "),
        ("echo '[]' >&2; echo '[]'; exit 1", "ended with code 1: "),
        ("head -c 100000000 /dev/zero >&2; head -c 100000000 /dev/zero", "ended with code "),
    ],
)
def test_tools_that_fail_have_not_looked(repository: Path, body: str, why: str) -> None:
    for name in ("opa", "regal"):
        fake(repository, name, body)
    found = report()
    assert found.findings == ()
    for each in found.looked[1:]:
        assert each.why.startswith(f"{repository}/bin/{each.tool}: {why}")


def test_a_tool_that_others_could_change_is_not_run(repository: Path) -> None:
    fake(repository, "regal", f"touch {repository}/ran")
    (repository / "bin/regal").chmod(0o777)
    assert "can be changed by other users" in report().looked[2].why
    assert not (repository / "ran").exists()


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
    assert lines[5] == "regal did not look: nosuch is no folder"


def test_what_keeps_regal_from_looking_is_told_in_its_words(repository: Path) -> None:
    install(repository, "regal")
    (repository / "policies/a_test.rego").write_text("package krie.site_test\n\n}\n")
    (why,) = [each.why for each in report().looked if each.tool == REGAL]
    assert "a_test.rego:3" in why
    assert '"' not in why
    assert "error(s)" not in why


def test_what_only_follows_comes_behind_its_cause(repository: Path) -> None:
    wrong = FINE.replace('input.event.name == "kernel/x"', 'input.event.change == "lowr"')
    (repository / "policies/site.rego").write_text(wrong)
    assert [code for _, code in told(report(), KRIE)] == ["meaning", "never"]
    checked = CliRunner().invoke(policy_command, ["check", "--json"])
    assert [each["code"] for each in json.loads(checked.stdout)["warnings"]] == ["meaning", "never"]


def test_a_file_is_told_to_be_no_folder(repository: Path) -> None:
    (repository / "site.rego").write_text(MANY)
    (found, *_) = json.loads(run("site.rego", "--json").stdout)["findings"]
    assert (found["file"], found["what"]) == ("site.rego", "is no folder; name the folder that it is in")


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


def test_regal_is_configured_by_the_repository_or_by_what_suits_krie(repository: Path) -> None:
    install(repository, "regal")
    assert told(report(), REGAL) == []
    (repository / ".regal").mkdir()
    (repository / ".regal/config.yaml").write_text("rules: {style: {opa-fmt: {level: warning}}}\n")
    (repository / "policies/site.rego").write_text(FINE.replace("\tinput.event.name", "  input.event.name"))
    found = report()
    by_code = {each.code: each.severity for each in found.findings if each.tool == REGAL}
    assert by_code == {"idiomatic/directory-package-mismatch": "error", "style/opa-fmt": "warning"}


def test_a_policy_with_schemas_of_its_own(repository: Path) -> None:
    install(repository, "opa")
    own = "# METADATA\n# scope: subpackages\n# schemas: [{input: schema.runtime_integrity.ptrace}]\n"
    (repository / "policies/site.rego").write_text(own + FINE)
    assert told(report(), OPA) == [("policies/site.rego:11:2", "type-error")]  # ptrace has no name


def test_the_configured_opa_is_asked_once_and_tells_more_than_one_error(repository: Path) -> None:
    install(repository, "opa")
    (repository / ".cache/tools/opa").rename(repository / "my-opa")
    configure(repository, 'opa = "my-opa"')
    (repository / "policies/site.rego").write_text(f"{FINE}\nfirst if nosuch(1)\n\nsecond if nosuch(2)\n")
    found = report()
    assert found.looked[1].path == str(repository / "my-opa")
    assert told(found, OPA) == [("policies/site.rego:11:10", "type-error"), ("policies/site.rego:13:11", "type-error")]


@pytest.mark.parametrize("format_", ["json", "sarif", "github", "gitlab", "markdown"])
def test_every_format_is_printed_and_written(repository: Path, format_: str) -> None:
    (repository / "policies/site.rego").write_text(MANY)
    result = run("--format", format_, "--write", f"{format_}=out", "--write", "json=out.json")
    assert result.exit_code == 4
    assert (repository / "out").read_text() == result.stdout
    assert json.loads((repository / "out.json").read_text())["errors"] == 3


def test_what_cannot_be_written(repository: Path) -> None:
    assert "say FORMAT=FILE" in run("--write", "text=x").output
    result = CliRunner().invoke(policy_command, ["lint", "--write", "json=none/x"])
    assert str(result.exception) == "none/x: cannot be written: No such file or directory"


@pytest.fixture(scope="module")
def everything() -> tuple[Config, Any]:
    place = Path(__file__).parents[2] / "krie.toml"
    config = load_config(place)
    return config, load_plugins(config, str(place))[0]


def test_the_shipped_policies_are_clean_by_opa_with_types(everything: tuple[Config, Any]) -> None:
    found = lint(everything[0], Path(__file__).parents[2] / "krie.toml", everything[1], ["opa"])
    assert (found.findings, found.looked[1].why) == ((), "")


def test_a_package_sees_the_kinds_that_its_rules_are_about(everything: tuple[Config, Any]) -> None:
    config, loaded = everything
    known = event_schemas(loaded)
    packages = {each.name: kinds_of(each, known) for each in tried_engine(config, loaded).packages}
    assert all(each.startswith("smep_smap.") for each in packages["data.krie.smep_smap"])
    assert all(each.startswith("krie.") for each in packages["data.krie.agent"])


def test_schemas_for_others(repository: Path) -> None:
    result = CliRunner().invoke(policy_command, ["schemas", "types"])
    assert result.exit_code == 0
    schema = json.loads((repository / "types" / file_of("runtime_integrity.sysctl_write")).read_text())
    assert schema["properties"]["event"]["properties"]["kind"]["type"] == "string"
    shutil.copytree(repository / "types", repository / "again")
    assert CliRunner().invoke(policy_command, ["schemas", "types"]).exit_code == 0


NAMES = (
    "a%0A::error::x,line=1.rego",
    "::stop-commands::x.rego",
    "--config-file=x.rego",
    "new\nline.rego",
    "\udcff.rego",
)


def test_names_of_files_that_mean_something_to_others(repository: Path) -> None:
    install(repository, "opa", "regal")
    for number, name in enumerate(NAMES):
        text = MANY.replace("krie.site", f"krie.s{number}").replace("SITE001", f"SITE10{number}")
        (repository / "policies" / name).write_text(text.replace("\tunused", "  unused"))
    found = report("opa", "regal")
    shown = {f"policies/{name}" for name in (*NAMES[:3], "new\\nline.rego", "\\xff.rego")}
    for tool in (KRIE, OPA, REGAL):
        assert {each.place.file for each in found.findings if each.tool == tool} == shown
    lines = run("--format", "github").stdout.splitlines()
    assert len(lines) == len(found.findings) + 1
    assert all(line.startswith("::error file=policies/") for line in lines[:-1])
    assert not any(line.startswith("::") for line in run().stdout.splitlines())
