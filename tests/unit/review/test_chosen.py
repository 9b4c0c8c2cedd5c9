"""The policy that a command is given: a folder, a bundle, a revision of git. None of it runs anything."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from krie.cli.policy import policy
from krie.errors import PolicyError
from krie.policy.bundle import bundle_of
from krie.review.chosen import Chosen, named
from krie.review.git_revision import Repository
from krie.review.report_text import FORMATS

from .. import sarif
from .site_policy import RULE, choose, commit, git

POLICIES = Path(__file__).parents[3] / "policies"


def texts(found: Chosen) -> str:
    return "\n".join(each.text for each in found.sources.files)


def test_a_revision_is_what_was_committed_and_nothing_is_checked_out(site: Path) -> None:
    (site / "a.rego").write_text(RULE.format("site", "UNCOMMITTED"))
    assert '"OLD"' in texts(choose("HEAD~1", site))
    assert '"NEW"' in texts(choose("main", site))
    assert "UNCOMMITTED" in texts(choose("", site))
    assert choose("main", site).sources.data["list"] == [1]
    assert git(site.parent, "status", "--porcelain") == "M site/a.rego"


def test_every_report_names_the_commit_that_a_revision_was(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = site.parent
    (home / "krie.toml").write_text('[policy]\npaths = ["site"]\n')
    monkeypatch.chdir(home)
    old, new = (git(home, "rev-parse", each) for each in ("HEAD~1", "HEAD"))
    # KRIe's own rules may be in a repository, too.
    assert old in choose("HEAD~1", site).commit
    assert choose("site", site).commit == choose("", site).commit == ""
    diff, journal = ["diff", "git:HEAD~1", "HEAD"], ["replay", "journal", "--against", "git:HEAD~1", "--jobs", "1"]
    (home / "journal").write_text("{}\n")
    for command, commits in ((diff, (old, new)), (journal, (old,))):
        for shape in ("table", *FORMATS):
            shown = CliRunner().invoke(policy, [*command, "--format", shape]).stdout
            assert all(each in shown for each in commits), (command, shape, shown)
            assert shown.count("policies/agent is in ") <= 1, (command, shape, shown)
        told = json.loads(CliRunner().invoke(policy, [*command, "--format", "json"]).stdout)
        told_of = told["old"] if command is diff else told["new"]
        assert old in told_of["commit"]
        log = json.loads(CliRunner().invoke(policy, [*command, "--format", "sarif"]).stdout)
        jsonschema.validate(log, sarif.log(rule="id shortDescription", result="ruleId message level"))
        assert log["runs"][0]["properties"] == {side: told[side] for side in ("old", "new")}
    assert told["old"]["commit"] is None


def test_a_name_stands_for_its_commit_alone_where_there_is_one_repository() -> None:
    assert named({Path("/a"): "1" * 40}) == "1" * 40
    assert named({Path("/b"): "2" * 40, Path("/a"): "1" * 40}) == f"{'1' * 40} of /a, {'2' * 40} of /b"


def test_a_revision_is_that_of_ones_own_repository_where_krie_runs_out_of_a_clone(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KRIe's clone has no such branch, and need not have one."""
    git(site.parent, "branch", "feature", "HEAD~1")
    monkeypatch.chdir(site.parent)
    found = choose("feature", site)
    assert '"OLD"' in texts(found)
    assert '"BPF001"' in texts(found)
    assert found.commit == git(site, "rev-parse", "HEAD~1")
    shipped = [each for each in found.notes if "policies/runtime_integrity is in " in each]
    assert len(shipped) == 1
    assert shipped[0].endswith(" and is taken as it is")


def test_a_clone_of_krie_that_git_does_not_read_is_taken_as_it_is(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to root, and somebody else reviews a policy."""
    monkeypatch.chdir(site.parent)
    around = Repository.around

    def refusing(folder: Path) -> Repository | None:
        if folder.is_relative_to(POLICIES):
            raise PolicyError(f"{folder}: git: fatal: detected dubious ownership")
        return around(folder)

    monkeypatch.setattr(Repository, "around", staticmethod(refusing))
    found = choose("HEAD~1", site)
    assert '"OLD"' in texts(found)
    assert any("does not read" in each and "dubious ownership" in each for each in found.notes)
    with pytest.raises(PolicyError, match=r"nor can it be a revision of git.*dubious ownership"):
        choose("HEAD~1")


def test_a_revision_in_kries_own_clone_is_that_of_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    clone = tmp_path / "clone"
    shutil.copytree(POLICIES, clone / "policies")
    git(clone, "init", "-q", "-b", "main")
    first = commit(clone)
    rules = clone / "policies/runtime_integrity/ptrace.rego"
    rules.write_text(rules.read_text().replace("PTRACE001", "PTRACE009"))
    commit(clone)
    folders = tuple(clone / "policies" / name for name in ("agent", "runtime_integrity"))
    monkeypatch.setattr("krie.review.chosen.policy_folders", lambda *_: folders)
    monkeypatch.chdir(clone)
    found = choose("HEAD~1")
    assert found.commit == first
    assert "PTRACE009" not in texts(found)
    assert "PTRACE009" in texts(choose("main"))
    monkeypatch.chdir(tmp_path)  # whose name that may be, nobody knows there
    with pytest.raises(PolicyError, match="HEAD~1: there is no such folder or bundle; nor can it be a revision of git"):
        choose("HEAD~1")


def test_the_plugins_own_rules_stay(site: Path) -> None:
    found = choose("HEAD~1", site)
    assert '"BPF001"' in texts(found)
    assert found.sources.files[-1].place == "HEAD~1:site/a.rego"


def test_the_same_files_have_the_same_revision(site: Path) -> None:
    assert choose("HEAD", site).revision == choose("", site).revision != choose("HEAD~1", site).revision


def test_a_name_of_nothing_is_told_as_that(site: Path) -> None:
    with pytest.raises(PolicyError, match=r"^nosuch: git finds no commit .*; for a folder or a bundle, give a path"):
        choose("nosuch", site)


def test_a_copy_of_the_shipped_rules_stands_for_them(site: Path, tmp_path: Path) -> None:
    """It has the entry point, too, which reads all packages: as a rule of somebody's it would be recursive."""
    copy = tmp_path / "krie" / "policies"
    shutil.copytree(POLICIES, copy)
    found = choose(str(copy), site)
    assert not [each for each in found.sources.files if each.text.count("package krie.decision")]
    assert '"BPF001"' in texts(found)
    assert '"NEW"' not in texts(found)
    with pytest.raises(PolicyError, match=r"krie: is a copy of KRIe itself, .* name .*krie/policies$"):
        choose(str(copy.parent), site)


def test_a_folder_stands_for_policy_paths_and_for_plugins_whose_packages_it_has(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.rego").write_text(RULE.format("site", "FOLDER"))
    found = choose(str(other), site)
    assert '"FOLDER"' in texts(found)
    assert '"BPF001"' in texts(found)
    assert '"NEW"' not in texts(found)
    (other / "c.rego").write_text(RULE.format("runtime_integrity", "MINE"))
    found = choose(str(other), site)
    assert '"BPF001"' not in texts(found)
    assert "runtime_integrity" in found.notes[0]


def test_a_bundle_is_all_there_is(site: Path, tmp_path: Path) -> None:
    now = choose("", site)
    (tmp_path / "b.tar.gz").write_bytes(bundle_of(now.sources).to_bytes())
    found = choose(str(tmp_path / "b.tar.gz"), site)
    assert found.revision == now.revision
    assert sorted(each.text for each in found.sources.files) == sorted(each.text for each in now.sources.files)
