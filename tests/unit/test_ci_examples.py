"""The workflows of `examples/ci`: each of their steps is run by its own commands, in a repository of that kind.

Stand-ins: what installs (pip, go, apt-get), what only GitHub or GitLab have (gh, curl to their API, their variables).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from krie.config import load_config
from krie.plugin.offline import load_plugins
from krie.processes.enrich import PROCESS_SCHEMA
from krie.review.input_schemas import event_schemas

from tests.sample_journal import lines

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples/ci"
KRIE = Path(sys.executable).parent / "krie"
PROVIDED = {
    "github.base_ref": "main",
    "github.event.pull_request.number": "7",
    "github.token": "stand-in",
}
"""What GitHub puts in the place of expressions."""
CONDITIONS = (
    None,  # where no step before has failed
    "!cancelled()",
    "!cancelled() && github.event.pull_request.head.repo.full_name == github.repository",
)
"""Those that steps have. The last one is true here."""


class Repository:
    """A clone in which a branch is checked out, as CI has it, with stand-ins first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.clone, self.stand_ins = folder / "clone", folder / "stand-ins"
        for each in (self.home, self.stand_ins):
            each.mkdir()
        origin = folder / "origin"
        shutil.copytree(CI, origin)
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{self.stand_ins}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        for name in ("AUTHOR", "COMMITTER"):
            self.env |= {f"GIT_{name}_NAME": "x", f"GIT_{name}_EMAIL": "x@example.org"}
        self.git(origin, "init", "-q", "-b", "main")
        self.git(origin, "add", "-A")
        self.git(origin, "commit", "-qm", "policies")
        self.git(folder, "clone", "-q", str(origin), str(self.clone))
        self.stand_in("pip")
        self.stand_in("apt-get")
        self.stand_in("python3", "mkdir -p $3/bin")
        tools = f'name=${{2%@*}}; mkdir -p "$GOBIN"; ln -sf {ROOT}/.cache/tools/${{name##*/}} "$GOBIN"'
        self.stand_in("go", tools)
        (self.stand_ins / "krie").symlink_to(KRIE)

    def stand_in(self, name: str, body: str = "") -> None:
        path = self.stand_ins / name
        path.write_text(f'#!/bin/sh -e\necho "$0 $*" >>{self.stand_ins}/.asked\n{body}\n')
        path.chmod(0o755)

    def git(self, folder: Path, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, env=self.env, check=True, capture_output=True)

    def change(self, old: str, new: str) -> None:
        """Commit a change of the rules, and of their tests."""
        for file in self.clone.glob("policies/site/*.rego"):
            file.write_text(file.read_text().replace(old, new))
        self.git(self.clone, "checkout", "-qb", "change")
        self.git(self.clone, "commit", "-qam", "change")

    @property
    def asked(self) -> str:
        return (self.stand_ins / ".asked").read_text()

    def run(self, script: str, env: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "--noprofile", "--norc", *options, "-c", script]
        environment = {**self.env, **env}
        return subprocess.run(command, cwd=self.clone, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def filled_in(text: str) -> str:
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: PROVIDED[found[1]], text)


def on_github(repository: Repository) -> tuple[dict[str, int], str]:
    """Exit codes of the steps that run something, by name, and all that they wrote."""
    (job,) = yaml.safe_load((CI / "github.yml").read_text())["jobs"].values()
    runner = {name: repository.home / name for name in ("GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
    for file in runner.values():
        file.touch()
    env = {name: str(file) for name, file in runner.items()}
    env |= {name: filled_in(value) for name, value in job["env"].items()}
    codes: dict[str, int] = {}
    output = ""
    for step in job["steps"]:
        condition = step.get("if")
        assert condition in CONDITIONS
        if "run" not in step or (condition is None and any(codes.values())):
            continue
        assert "${{" not in step["run"], "what others choose becomes code"
        found = runner["GITHUB_PATH"].read_text().split()
        own = {name: filled_in(value) for name, value in step.get("env", {}).items()}
        path = ":".join([*found[::-1], repository.env["PATH"]])
        done = repository.run(step["run"], {**env, **own, "PATH": path}, "-e")
        codes[step["name"]] = done.returncode
        output += f"== {step['name']}\n{done.stdout}{done.stderr}"
    return codes, output


def on_gitlab(repository: Repository) -> subprocess.CompletedProcess[str]:
    (job,) = yaml.safe_load((CI / "gitlab.yml").read_text()).values()
    provided = {
        "CI_PROJECT_DIR": str(repository.clone),
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_PROJECT_ID": "1",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "KRIE_COMMENT_TOKEN": "stand-in",
    }
    script = "\n".join([*job["before_script"], *job["script"]])
    return repository.run(script, {**job["variables"], **provided}, "-eo", "pipefail")


def test_github_lets_a_fine_change_pass_and_comments_what_it_does(repository: Repository) -> None:
    repository.stand_in("gh", f"cp comment.md {repository.home}/comment")
    repository.change("uid < 1000", "uid < 2000")
    codes, output = on_github(repository)
    tests = (codes.pop("Test"), codes)
    assert tests == (4, dict.fromkeys(codes, 0)), output  # its own test says that 1000 is none
    comment = (repository.home / "comment").read_text()
    assert "### Policy lint: 0 errors" in comment
    assert comment.count("SITE002") >= 2, comment  # by diff and by replay
    assert (repository.home / "GITHUB_STEP_SUMMARY").read_text() == comment
    assert "gh pr comment 7 --body-file comment.md --edit-last --create-if-none" in repository.asked
    assert json.loads((repository.clone / "lint.sarif").read_text())["version"] == "2.1.0"


def test_github_fails_a_change_that_is_wrong(repository: Repository) -> None:
    repository.stand_in("gh")
    repository.change("input.process.uid", "input.process.udi")
    codes, output = on_github(repository)
    assert codes["Lint"] == 4, output
    assert re.search(
        r"^::error file=policies/site/site.rego,line=\d+,col=\d+,title=opa/type-error::", output, re.MULTILINE
    )
    assert codes["Comment"] == 0


def test_gitlab_does_the_same(repository: Repository) -> None:
    repository.stand_in("curl", f"cp {repository.clone}/comment.md {repository.home}/comment")
    repository.change("uid < 1000", "uid < 2000")
    done = on_gitlab(repository)
    comment = (repository.home / "comment").read_text()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "### Policy lint: 0 errors" in comment
    assert comment.count("SITE002") >= 2, comment
    assert "https://gitlab.example/api/v4/projects/1/merge_requests/7/notes" in repository.asked
    assert json.loads((repository.clone / "lint.json").read_text()) == []


def test_lint_of_the_example_is_what_the_workflows_ask_for(repository: Repository) -> None:
    (job,) = yaml.safe_load((CI / "github.yml").read_text())["jobs"].values()
    (step,) = [each for each in job["steps"] if each.get("name") == "Lint"]
    repository.run("go install x/opa@v1 && go install x/regal@v1", {"GOBIN": str(repository.stand_ins)}, "-e")
    done = repository.run(step["run"], {}, "-e")
    assert (done.returncode, done.stdout) == (0, "::notice title=krie policy lint::0 errors\n"), done


def test_the_versions_are_those_that_the_project_is_tested_with() -> None:
    setup = (ROOT / "tools/setup-rego").read_text()
    for name in ("github.yml", "gitlab.yml"):
        text = (CI / name).read_text()
        for tool in ("opa", "regal"):
            (found,) = re.findall(rf"^{tool}=(v\S+)$", setup, re.MULTILINE)
            assert f"github.com/open-policy-agent/{tool}@{found}\n" in text


def test_the_sample_is_what_an_agent_writes_today() -> None:
    config = load_config(CI / "krie.toml")
    events = event_schemas(load_plugins(config, "krie.toml")[0])
    kept = [json.loads(line) for line in (CI / "journal/sample.jsonl").read_text().splitlines()]
    made = [json.loads(line) for line in lines(CI / "krie.toml")]
    assert [shape(line) for line in kept] == [shape(line) for line in made], "python -m tests.sample_journal, see there"
    assert {rule["id"] for line in kept for rule in line["decision"]["rules"]} >= {"SITE001", "SITE002", "SYSCTL001"}
    for line in kept:
        schema = events[line["kind"]]
        assert isinstance(schema, Mapping)
        jsonschema.validate({"kind": line["kind"], **line["event"]}, schema)
        assert isinstance(PROCESS_SCHEMA, Mapping)
        jsonschema.validate({**line["process"], "ancestors": []}, PROCESS_SCHEMA)


def shape(value: Any) -> Any:
    """Names and types of all that is in it; digests are names, too."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value).__name__
