"""Folders of policies that change, lead in circles or cannot be read: at most one clear error."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.errors import ConfigError, PolicyError
from krie.policy.snapshot import policy_files, read_unchanged, stamp_of
from krie.policy.sources import PolicySources, read_sources
from krie.trust import read_trusted

RULE = """package krie.site

rules contains {"id": "%s", "action": "log"} if input.event.kind == "sample.seen"
"""


def read(folder: Path) -> PolicySources:
    return read_unchanged([folder], lambda: read_sources([folder], {}, lambda file: read_trusted(Path(str(file)))))


def swap(folder: Path, number: int) -> None:
    """As Kubernetes updates a mounted ConfigMap."""
    new = folder / f"..{number}"
    new.mkdir()
    (new / "site.rego").write_text(RULE % f"R{number}")
    (new / "mine.json").write_text(f'{{"mine": {number}}}')
    (folder / "..new").symlink_to(new.name)
    old = folder / "..data"
    before = old.resolve() if old.is_symlink() else None
    (folder / "..new").rename(old)
    if before is not None:
        for each in before.iterdir():
            each.unlink()
        before.rmdir()


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "mounted"
    folder.mkdir()
    swap(folder, 0)
    for name in ("site.rego", "mine.json"):
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def numbers(sources: PolicySources) -> set[object]:
    return {sources.data["mine"], *(int(each.text.partition('"R')[2].partition('"')[0]) for each in sources.files)}


@pytest.mark.parametrize("changes", [1, 4])
def test_rules_and_data_are_of_one_moment(mounted: Path, changes: int) -> None:
    left = list(range(changes))

    def reading(file: object) -> bytes:
        content = Path(str(file)).read_bytes()
        if left:
            left.pop()
            swap(mounted, 100 + len(left))  # between the first file and the next
        return content

    found = read_unchanged([mounted], lambda: read_sources([mounted], {}, reading), lambda _: None)
    assert numbers(found) == {100}


def test_a_folder_that_never_rests_is_one_error(mounted: Path) -> None:
    count = iter(range(1, 100))

    def reading(file: object) -> bytes:
        content = Path(str(file)).read_bytes()
        swap(mounted, next(count))
        return content

    with pytest.raises(PolicyError, match="changed 5 times while being read"):
        read_unchanged([mounted], lambda: read_sources([mounted], {}, reading), lambda _: None)


def test_a_folder_that_goes_away_meanwhile_is_one_error(mounted: Path) -> None:
    def vanish() -> PolicySources:
        for each in mounted.iterdir():
            if each.is_symlink():
                each.unlink()
        mounted.rename(mounted.with_name("gone"))
        return read_sources([mounted], {})

    with pytest.raises((PolicyError, FileNotFoundError), match="no such folder|No such file"):
        read_unchanged([mounted], vanish, lambda _: None)


def link_to_itself(folder: Path) -> None:
    (folder / "l.rego").symlink_to("l.rego")


def link_to_nothing(folder: Path) -> None:
    (folder / "l.json").symlink_to("nowhere")


def folder_in_itself(folder: Path) -> None:
    (folder / "again").symlink_to(".")


def folder_two_up(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/again").symlink_to("../..")


def folder_that_is_a_rule(folder: Path) -> None:
    (folder / "l.rego").symlink_to("/dev/null")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "l.rego")


def deep(folder: Path) -> None:
    (folder / Path(*"x" * 40)).mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (link_to_itself, "l.rego: cannot be read: Too many levels of symbolic links"),
        (link_to_nothing, "l.json: cannot be read: No such file"),
        (folder_in_itself, "again: leads back to a folder above it"),
        (folder_two_up, "a/b/again: leads back to a folder above it"),
        (folder_that_is_a_rule, "l.rego: is not a regular file"),
        (pipe, "l.rego: is not a regular file"),
        (deep, "is more than 32 folders deep"),
    ],
)
def test_odd_folders(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    make(folder)
    with pytest.raises((PolicyError, ConfigError), match=message):
        read(folder)
    before = stamp_of([folder])
    assert stamp_of([folder]) == before
    (folder / "more.rego").touch()
    assert stamp_of([folder]) != before or make in (folder_in_itself, folder_two_up, deep)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_a_file_system_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "below").mkdir()

    def fail(path: str) -> object:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(PolicyError, match=f"{tmp_path}: cannot be read: {os.strerror(number)}"):
        read(tmp_path)
    assert stamp_of([tmp_path]) == stamp_of([tmp_path])


def test_a_file_whose_reading_fails(tmp_path: Path) -> None:
    """The kernel answers EIO: nothing is mapped where a process's memory begins."""
    file = tmp_path / "site.rego"
    file.symlink_to(f"/proc/{os.getpid()}/mem")
    with file.open("rb") as memory, pytest.raises(OSError, match="Errno 5"):
        memory.read(1)
    for _ in range(2):
        with pytest.raises(PolicyError, match=f"^{file}: cannot be read: {os.strerror(errno.EIO)}"):
            read_sources([tmp_path], {})
    file.unlink()
    file.write_text(RULE % "R1")
    assert len(read_sources([tmp_path], {}).files) == 1


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff.json"
    with open(place, "w") as file:
        file.write("{")
    with pytest.raises(PolicyError, match=r"/\\xff.json:1:2: is not valid JSON") as caught:
        read_sources([tmp_path], {})
    str(caught.value).encode()


def test_hidden_files_and_tests_count_for_nothing(tmp_path: Path) -> None:
    for name in (".hidden.rego", "_cache.json", "site_test.rego", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.rego").touch()
    assert list(policy_files(tmp_path)) == []
    assert stamp_of([tmp_path]) == frozenset()


@pytest.mark.parametrize("below", [False, True], ids=["in one folder", "in many"])
def test_a_folder_of_very_many_files_is_one_error_before_all_are_listed(
    tmp_path: Path, below: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krie.policy.snapshot.MOST_ENTRIES", 50)
    for number in range(60):
        place = tmp_path / f"{number % 10}" if below else tmp_path
        place.mkdir(exist_ok=True)
        (place / f"{number}.txt").touch()  # no policies: they are listed too
    with pytest.raises(PolicyError, match="there are more than 50 files and folders; keep what is not a policy"):
        list(policy_files(tmp_path))
    assert stamp_of([tmp_path]) == stamp_of([tmp_path])
    for each in tmp_path.glob("[5-8]" if below else "5*"):
        shutil.rmtree(each) if below else each.unlink()
    assert list(policy_files(tmp_path)) == []


def test_names_are_shown_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b[31m.json").write_text("{")
    with pytest.raises(PolicyError) as caught:
        read_sources([tmp_path], {})
    assert str(caught.value).startswith(f"{tmp_path}/a\\nb\\x1b[31m.json:1:2: is not valid JSON")


def test_all_policies_together_have_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.policy.sources.MOST_BYTES", 1 << 20)
    for name in ("a.json", "b.rego"):
        (tmp_path / name).write_text("{}" + " " * ((1 << 19) - 2))
        read_sources([tmp_path], {})
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"c.json: all policies and data are larger than 1 MiB"):
        read_sources([tmp_path], {})


@pytest.mark.parametrize("name", ["site.rego", "mine.json"])
def test_a_byte_order_mark_is_skipped_at_the_beginning_only(tmp_path: Path, name: str) -> None:
    text = RULE % "R1" if name == "site.rego" else '{"mine": 1}'
    (tmp_path / name).write_text(f"\ufeff{text}")
    plain = read_sources([tmp_path], {}).revision
    (tmp_path / name).write_text(text)
    assert read_sources([tmp_path], {}).revision == plain
