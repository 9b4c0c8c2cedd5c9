"""What somebody does to the journal's file is noticed soon, told with a count, and the file opened again."""

import os
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.agent.journal import LineWriter
from krie.agent.journal_file import Change, JournalFile
from krie.errors import ConfigError
from krie.testing.patience import PATIENCE_S, wait_for

Way = Callable[[Path], object]


class Journal:
    """A journal that is written, and what was told of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.told, self.trouble = path, queue.Queue[Change](), list[str]()
        self.writer = LineWriter(JournalFile(path, 1 << 20, 3, self.told.put), 100_000, self.trouble.append)
        self._count = 0

    def write(self, lines: int = 1) -> None:
        """Write so many numbered lines, and wait until they are written or lost."""
        before = self.writer.written + self.writer.failed
        for _ in range(lines):
            assert self.writer.write(f"line {self._count}")
            self._count += 1
        while self.writer.written + self.writer.failed < before + lines:
            time.sleep(0.001)

    def change(self) -> Change:
        return self.told.get(timeout=PATIENCE_S)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "log" / "journal.jsonl")
    made.write(2)
    yield made
    made.writer.close()


def replaced(make: Way) -> Way:
    """By something else, in one step, as rename(2) does it."""

    def way(path: Path) -> None:
        make(path.with_name("new"))
        path.with_name("new").rename(path)

    return way


def by_folder(path: Path) -> None:
    path.rename(path.with_name("taken"))
    path.mkdir()
    (path / "inside").write_text("somebody's")


def copied_and_emptied(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    os.truncate(path, 0)


def of_another_user(path: Path) -> None:
    path.write_text("forged\n")
    os.chown(path, 12345, -1)


def for_others_to_write(path: Path) -> None:
    path.write_text("forged\n")
    path.chmod(0o666)


def another_name_of_a_file(path: Path) -> None:
    path.with_name("precious").write_text("precious\n")
    path.with_name("precious").chmod(0o644)
    os.link(path.with_name("precious"), path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def a_file(path: Path) -> None:
    path.write_text("theirs\n")
    path.chmod(0o640)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("forged")


def away_with_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))


WAYS: dict[str, tuple[Way, str, str]] = {
    "moved": (lambda path: path.rename(path.with_name("journal.jsonl-20261128")), "moved", ""),
    "into another folder": (lambda path: path.rename(path.parent.parent / "x"), "moved", ""),
    "its folder moved": (away_with_folder, "moved", ""),
    "removed": (Path.unlink, "removed", ""),
    "removed with its folder": (lambda path: shutil.rmtree(path.parent), "removed", ""),
    "emptied": (lambda path: os.truncate(path, 0), "emptied", ""),
    "copied and emptied": (copied_and_emptied, "emptied", ""),
    "cut": (lambda path: os.truncate(path, 9), "changed", "5 bytes of its end were cut off"),
    "written": (append, "changed", "somebody else wrote 6 bytes"),
    "a file": (replaced(a_file), "replaced", ""),
    "a link": (replaced(lambda path: path.symlink_to("/etc/passwd")), "replaced", "a symbolic link was in its place"),
    "a link to nowhere": (replaced(lambda path: path.symlink_to("nowhere")), "replaced", "a symbolic link was"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path.name)), "replaced", "a symbolic link was"),
    "a FIFO": (replaced(os.mkfifo), "replaced", "a FIFO was in its place (it is not a regular file)"),
    "a socket": (replaced(a_socket), "replaced", "a socket was"),
    "a folder": (by_folder, "replaced", "a folder was"),
    "another user's": (replaced(of_another_user), "replaced", "it belongs to user 12345"),
    "others may write": (replaced(for_others_to_write), "replaced", "other users can write it"),
    "a hard link": (replaced(another_name_of_a_file), "replaced", "it has another name, too"),
}


@pytest.mark.parametrize("name", WAYS)
def test_it_is_noticed_told_and_opened_anew(journal: Journal, name: str) -> None:
    way, state, detail = WAYS[name]
    way(journal.path)
    change = journal.change()
    assert (change.path, change.state, change.lines) == (journal.path, state, 0)
    assert detail in change.detail
    journal.write(2)
    status = journal.path.lstat()
    assert (status.st_mode, status.st_uid, status.st_nlink) == (0o100600, os.geteuid(), 1)
    assert journal.path.read_bytes().endswith(b"\nline 2\nline 3\n" if name in WHAT_IS_LEFT else b"line 2\nline 3\n")
    assert journal.path.read_bytes() == WHAT_IS_LEFT.get(name, b"") + b"line 2\nline 3\n"
    assert (journal.writer.written, journal.writer.failed, journal.trouble) == (4, 0, [])
    assert journal.told.empty()


WHAT_IS_LEFT = {"cut": b"line 0\nli\n", "written": b"line 0\nline 1\nforged\n", "a file": b"theirs\n"}


def test_what_was_in_the_place_is_kept_beside_it(journal: Journal) -> None:
    WAYS["a folder"][0](journal.path)
    assert "which is journal.jsonl.strange.1 now" in journal.change().detail
    WAYS["a FIFO"][0](journal.path)
    assert "which is journal.jsonl.strange.2 now" in journal.change().detail
    assert (journal.path.with_name("journal.jsonl.strange.1") / "inside").read_text() == "somebody's"
    assert journal.path.with_name("journal.jsonl.strange.2").is_fifo()
    journal.write()
    WAYS["a hard link"][0](journal.path)
    journal.change()
    journal.write()
    assert journal.path.with_name("precious").read_text() == "precious\n"
    assert journal.path.with_name("precious").stat().st_mode == 0o100644


def test_who_fills_the_folder_with_strangers_gets_no_more_of_them(journal: Journal) -> None:
    for number in range(1, 17):
        journal.path.with_name(f"journal.jsonl.strange.{number}").touch()
    WAYS["a FIFO"][0](journal.path)
    change = journal.change()
    assert (change.state, change.detail) == ("replaced", "it cannot be opened again: it is not a regular file")


def test_lines_go_on_into_what_was_moved_where_nothing_can_be_opened_and_are_counted(journal: Journal) -> None:
    folder = journal.path.parent
    away_with_folder(journal.path)
    folder.write_text("no folder")
    change = journal.change()
    assert (change.state, change.lines) == ("moved", 0)
    assert change.detail.startswith("it cannot be opened again: ")
    journal.write(3)
    time.sleep(0.6)
    assert journal.told.empty()  # it is told once
    folder.unlink()
    assert journal.change() == Change(journal.path, "opened", lines=3)
    journal.write()
    assert journal.path.read_text() == "line 5\n"
    assert (folder.with_name("gone") / "journal.jsonl").read_text() == "".join(f"line {each}\n" for each in range(5))
    assert (journal.writer.failed, journal.trouble) == (0, [])


def test_lines_are_lost_and_counted_where_the_file_is_gone_and_none_can_be_made(journal: Journal) -> None:
    folder = journal.path.parent
    shutil.rmtree(folder)
    folder.write_text("no folder")
    change = journal.change()
    assert (change.state, change.bytes) == ("removed", 14)
    journal.write(3)
    assert (journal.writer.written, journal.writer.failed) == (2, 3)
    folder.unlink()
    assert journal.change() == Change(journal.path, "opened", bytes=14)
    journal.write()
    assert journal.path.read_text() == "line 5\n"
    assert journal.trouble[1:] == ["is written again; 3 lines were lost"]


def test_it_is_opened_anew_when_asked(journal: Journal, tmp_path: Path) -> None:
    """logrotate's `create`: moved, made by somebody else, then SIGHUP."""
    journal.path.rename(journal.path.with_name("journal.jsonl.1"))
    journal.path.touch(0o640)
    journal.writer.reopen()
    assert journal.change().state in ("replaced", "moved")
    journal.write()
    assert journal.path.read_text() == "line 2\n"
    journal.writer.reopen()
    journal.write()
    assert journal.path.read_text() == "line 2\nline 3\n"
    assert journal.told.empty()


def test_to_open_it_anew_makes_it_private_again(journal: Journal) -> None:
    """Whatever else has become of a file that is in its place, too."""
    journal.path.chmod(0o640)
    journal.writer.reopen()
    wait_for(lambda: journal.path.stat().st_mode & 0o777 == 0o600)
    journal.write()
    assert journal.path.read_text() == "line 0\nline 1\nline 2\n"
    assert journal.told.empty()


def test_no_line_is_lost_while_somebody_moves_the_file_again_and_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    end = threading.Event()

    def move() -> None:
        number = 0
        while not end.is_set():
            try:
                journal.path.rename(tmp_path / f"taken.{number}")
                number += 1
            except FileNotFoundError:
                pass
            time.sleep(0.002)

    mover = threading.Thread(target=move)
    mover.start()
    for _ in range(100):
        journal.write(50)
    end.set()
    mover.join()
    journal.writer.close()
    found = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    assert sorted(found) == sorted(f"line {each}" for each in range(5000))
    assert (journal.writer.written, journal.writer.failed) == (5000, 0)
    assert journal.told.qsize() > 5


def test_a_hard_link_is_refused_at_the_start(tmp_path: Path) -> None:
    another_name_of_a_file(tmp_path / "journal.jsonl")
    with pytest.raises(ConfigError, match="it has another name, too"):
        JournalFile(tmp_path / "journal.jsonl", 100, 3)
