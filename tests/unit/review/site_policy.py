"""A repository with a site's policy, and the policy that a command is given."""

import subprocess
from pathlib import Path

from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.review.chosen import Chosen, chosen, in_force

RULE = 'package krie.{}\n\nrules contains {{"id": "{}", "action": "log"}} if input.event.kind == "x"\n'


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    ran = subprocess.run(["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x", "--allow-empty", "--no-verify")
    return git(folder, "rev-parse", "HEAD")


def repository(tmp_path: Path) -> Path:
    """A repository whose folder `site` is in force; the first commit had rule OLD, the second has NEW."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "repository" / "site"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "-q", "-b", "main")
    (folder / "a.rego").write_text(RULE.format("site", "OLD"))
    (folder / "data.json").write_text('{"list": [1]}')
    (folder / "a_test.rego").write_text("package krie.site_test\n")
    commit(folder.parent)
    (folder / "a.rego").write_text(RULE.format("site", "NEW"))
    commit(folder.parent)
    return folder


def choose(name: str, *folders: Path) -> Chosen:
    config = Config.model_validate(
        {"policy": {"paths": tuple(f"{each}/" for each in folders)}, "plugins": {"runtime_integrity": {}}}
    )
    plugins = Plugins.load(config, "krie.toml", Features(), print)
    return chosen(name, config, plugins) if name else in_force(config, plugins)
