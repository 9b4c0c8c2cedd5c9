"""What commands print of a policy and a journal, in the log of a CI system: nothing of it is a command there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from krie.cli.policy import policy

ROOT = Path(__file__).parents[2]
HOSTILE = "::stop-commands::x"
RULE = """package krie.site

# METADATA
# title: "::stop-commands::title ##[add-mask]a"
# description: |
#   ::stop-commands::described
#   ##[error]described
# custom: {{severity: "::high", technique: "##vso[T1]", seen: "::seen"}}
rules contains {{"id": "{id}", "action": "log"}} if {{
	input.event.kind == "runtime_integrity.ptrace" # ##[error]source
	input.process.uid < {uid}
	input.process.comm != `
::stop-commands::source`
}}
"""
TEST = """package krie.site_test

import data.krie.site

test_nothing if not site.rules
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, two policies and a journal, in which everything that may be chosen is a command."""
    made = tmp_path_factory.mktemp("ci")
    made.chmod(0o700)
    for name, uid in (("old", 1000), ("::new", 500)):
        (made / name).mkdir()
        (made / name / f"{HOSTILE}.rego").write_text(RULE.format(id=f"{HOSTILE}##[x]", uid=uid))
    (made / "old" / f"{HOSTILE}_test.rego").write_text(TEST)
    (made / "krie.toml").write_text('[policy]\npaths = ["old"]\n[plugins.runtime_integrity]\n')
    sample = [json.loads(line) for line in (ROOT / "examples/ci/journal/sample.jsonl").read_text().splitlines()]
    for line in sample:
        line["process"] |= {"comm": "::comm", "exe": "##[exe]", "uid": 700}
        line["host"]["name"] = "::host##[x]"
    lines = [*map(json.dumps, sample), "::stop-commands::x", '{"##[x]": 1}']
    (made / f"{HOSTILE}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return made


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, given: str | None = None) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(policy, [*arguments, "--config", "krie.toml"], input=given)


def harmless(shown: str) -> None:
    assert not re.search(r"##\w*\[", shown)
    assert [line for line in shown.split("\n") if line.strip().startswith("::")] == []


FORMATS = ("table", "json", "junit", "sarif", "markdown", "html")


@pytest.mark.parametrize("shape", FORMATS)
def test_diff(folder: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    result = run(folder, monkeypatch, "diff", "old", "::new", "--format", shape)
    assert result.exit_code == 11, result.output
    assert "stop-commands" in result.stdout or "stop&#45;commands" in result.stdout
    harmless(result.output)


@pytest.mark.parametrize("shape", FORMATS)
def test_replay(folder: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    result = run(
        folder, monkeypatch, "replay", f"{HOSTILE}.jsonl", "--against", "::new", "--jobs", "1", "--format", shape
    )
    assert result.exit_code == 11, result.output
    assert re.search("no line of a journal|no&#32;line|no line", result.stdout)
    harmless(result.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "--json"),
        ("explain",),
        ("explain", f"{HOSTILE}##[x]"),
        ("explain", "--html"),
        ("explain", "--json"),
        ("test",),
        *(("lint", "--format", shape) for shape in ("text", "json", "sarif", "gitlab", "markdown")),
    ],
)
def test_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    result = run(folder, monkeypatch, *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert HOSTILE[2:13] in result.output or HOSTILE[2:13].replace("-", "&#45;") in result.output
    harmless(result.output)


def test_annotations_are_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(folder, monkeypatch, "lint", "--format", "github")
    assert all(re.match("::(error|warning|notice) ", line) for line in result.stdout.splitlines())
    assert "stop-commands" in result.stdout


def test_decisions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"event": {"kind": "runtime_integrity.ptrace"}, "process": {"uid": 1, "comm": "x"}}
    lines = f"{json.dumps(document)}\n::stop-commands::x\n{json.dumps({'event': {'kind': '##[x]'}})}\n"
    result = run(folder, monkeypatch, "eval", "--lines", "--partial", given=lines)
    first, second, _ = result.stdout.splitlines()
    assert json.loads(first)["rules"][0]["id"] == f"{HOSTILE}##[x]"
    assert "error" in json.loads(second)
    harmless(result.output)


def test_a_policy_that_does_not_compile(tmp_path: Path, folder: Path) -> None:
    broken = tmp_path / "site"
    shutil.copytree(folder, broken)
    tmp_path.chmod(0o700)
    (broken / "old" / f"{HOSTILE}.rego").write_text("package krie.site\n\nrules contains x if { ##[error]\n")
    command = [sys.executable, "-c", "from krie.cli.main import main; main()", "policy", "check"]
    ran = subprocess.run(command, cwd=broken, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 4, ran.stderr
    assert HOSTILE in ran.stderr
    harmless(ran.stdout + ran.stderr)
