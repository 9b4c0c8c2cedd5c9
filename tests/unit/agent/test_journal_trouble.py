"""The journal when something goes wrong: no line is lost uncounted, no older file for nothing, and it recovers."""

import errno
import fcntl
import json
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from krie.agent.journal import LineWriter, StandardOutput
from krie.agent.journal_file import Change, JournalFile
from krie.errors import ConfigError


def line(letter: str) -> bytes:
    return letter.encode() * 9 + b"\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_a_rotation_that_stops_half_way_is_finished_later(tmp_path: Path) -> None:
    """The disk is full when the new file is to be made: the older files must not be rotated away meanwhile, and no line
    is lost for it."""
    path, told = tmp_path / "journal.jsonl", list[Change]()
    file = JournalFile(path, 10, 3, told.append)
    for letter in "abc":
        file.write(line(letter))

    def full(name: Path, flags: int, mode: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", full)
        for _ in range(5):
            file.write(line("d"))
    assert told == [Change(path, "stuck", detail="it cannot be rotated: No space left on device")]
    file.write(line("e"))
    file.close()
    assert contents(tmp_path) == {
        "journal.jsonl": line("e"),
        "journal.jsonl.1": line("c") + 5 * line("d"),
        "journal.jsonl.2": line("b"),
        "journal.jsonl.3": line("a"),
    }


def test_a_file_that_somebody_moved_away_is_made_anew_by_rotation(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 10, 2)
    file.write(line("a"))
    path.rename(tmp_path / "taken")
    file.write(line("b"))
    file.close()
    assert contents(tmp_path) == {"taken": line("a"), "journal.jsonl": line("b")}


def test_a_torn_line_does_not_keep_the_agent_from_starting_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"torn")
    path.chmod(0o600)

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        file = JournalFile(path, 100, 2)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"lost\n")
    file.write(b"one\n")
    file.write(b"two\n")
    file.close()
    assert path.read_bytes() == b"torn\none\ntwo\n"


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"forged\n")
    path.chmod(0o622)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=f"other users can write it: see what they wrote, then chmod 600 {path}"):
        JournalFile(path, 100, 2)
    assert len(os.listdir("/proc/self/fd")) == before
    assert path.stat().st_mode & 0o777 == 0o622


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.touch(0o600)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="it belongs to user 12345"):
        JournalFile(path, 100, 2)


def test_a_fifo_is_refused_without_waiting_for_its_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl", 0o600)
    with pytest.raises(ConfigError, match="it is not a regular file"):
        JournalFile(tmp_path / "journal.jsonl", 100, 2)


def test_text_that_has_no_utf8_does_not_stop_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = LineWriter(JournalFile(path, 1 << 20, 2), 100, lambda _: None)
    wild = {"name": "a\udc80\ud800é"}
    writer.write(json.dumps(wild, ensure_ascii=False))
    writer.write("{}")
    writer.close()
    assert [json.loads(each) for each in path.read_bytes().splitlines()] == [wild, {}]
    assert (writer.written, writer.failed) == (2, 0)


class Stuck:
    """A target that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go, self.entered = threading.Event(), threading.Event()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.entered.set()
        self.go.wait()

    def look(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_lines_that_are_left_when_the_time_is_over_are_counted() -> None:
    stuck, told = Stuck(), list[str]()
    writer = LineWriter(stuck, 100, told.append)
    writer.write("in the writer's hands")
    stuck.entered.wait()
    for _ in range(3):
        writer.write("queued")
    writer.close(timeout_s=0)
    assert told == ["does not take its last lines; 4 are lost"]
    assert not stuck.closed
    stuck.go.set()


def test_a_line_after_the_end_is_counted() -> None:
    stuck = Stuck()
    stuck.go.set()
    writer = LineWriter(stuck, 100, lambda _: None)
    writer.close()
    assert stuck.closed
    assert not writer.write("late")
    assert writer.overflowed == 1


@contextmanager
def piped_output() -> Iterator[tuple[int, int]]:
    """Standard output is a pipe meanwhile: yields its read end and its write end. No fixture: pytest's own capture
    takes standard output back between fixture and test."""
    read, write = os.pipe()
    kept = os.dup(1)
    os.dup2(write, 1)
    try:
        yield read, write
    finally:
        os.dup2(kept, 1)
        for each in (kept, write, read):
            os.close(each)


def test_a_reader_that_has_gone_is_told_and_lines_are_counted() -> None:
    gone: list[bool] = []
    with piped_output() as (read, write):
        os.dup2(write, read)  # nobody reads any more
        writer = LineWriter(StandardOutput(lambda: gone.append(True)), 100, lambda _: None)
        writer.write("one")
        writer.write("two")
        writer.close()
    assert gone
    assert (writer.written, writer.failed) == (0, 2)


def test_a_pipe_that_does_not_wait_gets_every_line_whole() -> None:
    """Whoever started the agent may have made its output non-blocking."""
    real = os.write
    refused = threading.Event()

    def watched(descriptor: int, data: memoryview) -> int:
        try:
            return real(descriptor, data)
        except BlockingIOError:
            refused.set()
            raise

    with piped_output() as (read, write), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", watched)
        os.set_blocking(write, False)
        size = 3 * fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
        data = b"x" * (size - 1) + b"\n"
        writer = threading.Thread(target=StandardOutput(lambda: None).write, args=(data,), daemon=True)
        writer.start()
        refused.wait()  # the pipe is full: nobody has read yet
        got = b""
        while len(got) < size and (writer.is_alive() or select.select([read], [], [], 0)[0]):
            if select.select([read], [], [], 0.1)[0]:
                got += os.read(read, size)
        writer.join()
    assert got == data


def test_a_line_torn_on_standard_output_is_ended_before_the_next() -> None:
    real = os.write
    answers = iter([4, None])

    def half(descriptor: int, data: memoryview) -> int:
        count = next(answers)
        if count is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, data[:count])

    output = StandardOutput(lambda: None)
    with piped_output() as (read, _):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match="Input/output error"):
                output.write(b"torn line\n")
        output.write(b"whole\n")
        output.write(b"next\n")
        got = os.read(read, 100)
    assert got == b"torn\nwhole\nnext\n"
