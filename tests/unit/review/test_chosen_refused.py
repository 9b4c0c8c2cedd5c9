"""What a command refuses to take a policy from, and what it does not follow or run."""

import os
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.review.git_revision import Repository

from .site_policy import RULE, choose, commit, git


def test_a_name_of_a_branch_and_of_a_tag_is_refused(site: Path) -> None:
    """Git takes the tag, a checkout in CI the branch."""
    git(site.parent, "tag", "main", "HEAD~1")
    git(site.parent, "config", "core.warnAmbiguousRefs", "false")
    with pytest.raises(PolicyError, match="main is several things in .*: write refs/heads/main or refs/tags/main"):
        choose("git:main", site)
    repository = Repository.around(site)
    assert repository is not None
    for name, revision in (("refs/heads/main", "HEAD"), ("refs/tags/main", "HEAD~1")):
        assert repository.commit(name) == git(site, "rev-parse", revision)


def test_a_file_whose_name_is_no_text_is_refused(site: Path) -> None:
    (site / "a.rego").rename(os.fsdecode(os.fsencode(site) + b"/\xff.rego"))
    commit(site.parent)
    with pytest.raises(PolicyError, match="the file's name is not UTF-8; rename it"):
        choose("git:HEAD", site)


REVISIONS = ["--upload-pack=touch ran", "--output=ran", "-h", "", " ", "a\nb", "HEAD\0", "nosuch", "HEAD:site", "@{1"]


@pytest.mark.parametrize("name", REVISIONS, ids=range(len(REVISIONS)))
def test_what_is_no_revision_is_refused(site: Path, name: str) -> None:
    with pytest.raises(PolicyError):
        choose(f"git:{name}", site)
    assert not list(site.parent.parent.rglob("ran"))


def test_nothing_of_a_repository_runs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it configures to be run: monitors, hooks, filters, pagers, attributes, remotes of missing objects."""
    program = site.parent.parent / "program"
    ran = site.parent.parent / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        target = site.parent / ".git" / "hooks" / hook
        target.parent.mkdir(exist_ok=True)
        target.write_text(program.read_text())
        target.chmod(0o755)
    (site.parent / ".gitattributes").write_text("*.rego filter=f diff=d export-subst\nsite/data.json export-ignore\n")
    commit(site.parent)
    for key in (
        "core.fsmonitor core.pager core.sshCommand core.editor filter.f.smudge filter.f.clean filter.f.process "
        "diff.d.textconv diff.d.command diff.external tar.tar.gz.command core.askPass credential.helper gpg.program "
        "uploadpack.packObjectsHook pager.ls-tree pager.cat-file alias.cat-file remote.origin.uploadpack"
    ).split():
        git(site.parent, "config", key, f"!{program}" if key.startswith("alias") else str(program))
    git(site.parent, "config", "remote.origin.url", f"ext::{program}")
    git(site.parent, "config", "protocol.ext.allow", "always")
    git(site.parent, "config", "extensions.partialClone", "origin")
    git(site.parent, "config", "remote.origin.promisor", "true")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    ran.unlink(missing_ok=True)  # what the commands above did
    found = choose("HEAD", site)
    assert found.sources.data["list"] == [1]
    assert not ran.exists()


def test_an_object_that_is_missing_is_told_and_not_fetched(site: Path) -> None:
    name = git(site.parent, "rev-parse", "HEAD:site/a.rego")
    (site.parent / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(PolicyError, match="fetch them first"):
        choose("HEAD", site)


@pytest.mark.parametrize("target", ["data.json", "../other", "."])
def test_links_are_refused_where_they_would_count(site: Path, target: str) -> None:
    (site.parent / "other").mkdir()
    (site.parent / "other" / "z.rego").write_text(RULE.format("other", "Z"))
    name = "link.json" if target == "data.json" else "link"
    (site / name).symlink_to(target)
    commit(site.parent)
    with pytest.raises(PolicyError, match="is a link, which is not followed"):
        choose("HEAD", site)


def test_a_link_that_leads_to_no_policy_is_left_out(site: Path) -> None:
    (site / "README").symlink_to("../README")
    commit(site.parent)
    assert choose("HEAD", site).sources.data["list"] == [1]


def test_a_folder_in_no_repository_is_taken_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "plain"
    folder.mkdir()
    assert Repository.around(folder) is None


def test_special_files_in_a_folder_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "p"
    folder.mkdir()
    os.mkfifo(folder / "a.rego")
    with pytest.raises(PolicyError, match="is not a regular file"):
        choose(str(folder))


def test_a_file_of_proc_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.rego").symlink_to("/proc/self/mem")
    with pytest.raises(PolicyError, match=r"a\.rego: cannot be read: Input/output error"):
        choose(str(folder))
