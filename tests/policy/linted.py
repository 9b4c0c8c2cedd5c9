"""A repository with policies, the tools that look at it, and what `krie policy lint` reports."""

from pathlib import Path

from click.testing import CliRunner, Result
from krie.cli.policy import policy as policy_command
from krie.config import load_config
from krie.plugin.offline import load_plugins
from krie.review.findings import Report
from krie.review.lint import lint

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


MANY = FINE.replace("severity: low", "severity: hihg").replace(
    '	input.event.name == "kernel/x"\n',
    '	input.event.nmae == "kernel/x"\n	input.event.new_int == "0"\n	unused := 5\n',
)
