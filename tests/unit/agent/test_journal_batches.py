"""A journal's file that is moved, emptied or full while lines are written or it is rotated."""

import os
from pathlib import Path

import pytest
from krie.agent.journal_file import Change, JournalFile


def test_a_batch_that_is_removed_while_it_is_written_is_written_again(tmp_path: Path) -> None:
    told = list[Change]()
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 1 << 20, 3, told.append)
    real = os.write

    def then_remove(descriptor: int, data: memoryview) -> int:
        count = real(descriptor, data)
        path.unlink(missing_ok=True)
        os.write = real
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", then_remove)
        file.write(b"one\ntwo\n")
    assert told == [Change(path, "removed", bytes=8)]
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_batch_that_is_moved_while_it_is_written_is_counted(tmp_path: Path) -> None:
    told = list[Change]()
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 1 << 20, 3, told.append)
    real = os.write

    def after_a_move(descriptor: int, data: memoryview) -> int:
        path.rename(path.with_name("taken"))
        return real(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", after_a_move)
        file.write(b"one\ntwo\n")
    file.write(b"three\n")
    assert told == [Change(path, "moved", lines=2)]
    assert (path.with_name("taken").read_bytes(), path.read_bytes()) == (b"one\ntwo\n", b"three\n")


def test_a_full_disk_makes_no_nul_bytes_in_a_file_that_was_emptied(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 1 << 20, 3)
    file.write(b"x" * 5000 + b"\n")
    real = os.write
    answers = iter([7, 0])

    def full(descriptor: int, data: memoryview) -> int:
        count = next(answers)
        if not count:
            os.truncate(path, 0)  # meanwhile
            real(descriptor, b"oth")
            raise OSError(28, os.strerror(28))
        return real(descriptor, data[:count])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"lost line\n")
    file.write(b"kept\n")
    file.close()
    assert path.read_bytes() == b"oth\nkept\n"


def test_the_size_that_rotation_goes_by_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 100, 3)
    for _ in range(9):
        file.write(b"123456789\n")
    os.truncate(path, 0)
    for _ in range(9):
        file.write(b"123456789\n")
    assert [each.name for each in tmp_path.iterdir()] == ["journal.jsonl"]


def test_an_older_file_survives_rotations_that_fail(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 10, 3)
    for letter in "abc":
        file.write(letter.encode() * 9 + b"\n")
    real = os.rename

    def fails(source: Path, target: Path) -> None:
        if str(target).endswith(".1"):
            raise OSError(28, os.strerror(28))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fails)
        for _ in range(10):
            file.write(b"123456789\n")
    assert {each.name: each.read_bytes()[:1] for each in tmp_path.iterdir()} == {
        "journal.jsonl": b"c",
        "journal.jsonl.2": b"b",
        "journal.jsonl.3": b"a",
    }
