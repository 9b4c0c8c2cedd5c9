"""Lint's report in every format, on the terminal and in files."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.review.findings import KRIE, OPA, REGAL

from .linted import MANY, install, report, run


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
