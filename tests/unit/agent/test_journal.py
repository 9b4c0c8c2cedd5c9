"""The journal: what is written, what is rotated, what is lost, and that nobody waits for it."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from krie.agent.journal import LineWriter
from krie.agent.journal_file import JournalFile
from krie.errors import ConfigError


class Memory:
    """A target that can be stopped and made to fail."""

    def __init__(self) -> None:
        self.data = b""
        self.error: int | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def write(self, data: bytes) -> None:
        self.entered.set()
        self.go.wait()
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.data += data

    def look(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        self.go.set()


def test_lines_arrive_in_order() -> None:
    memory = Memory()
    writer = LineWriter(memory, 1000, lambda _: None)
    for number in range(500):
        assert writer.write(str(number))
    writer.close()
    writer.close()
    assert memory.data.decode().split() == [str(number) for number in range(500)]
    assert (writer.written, writer.overflowed, writer.failed) == (500, 0, 0)


def test_a_full_queue_drops_and_counts_but_never_waits() -> None:
    memory = Memory()
    memory.go.clear()
    writer = LineWriter(memory, 10, lambda _: None)
    writer.write("first")
    memory.entered.wait()  # the writer holds it, and is stuck
    accepted = sum(writer.write("x") for _ in range(25))
    assert (accepted, writer.overflowed) == (10, 15)
    memory.go.set()
    writer.close()
    assert writer.written == 11


def test_trouble_and_recovery_are_told_once_and_counted() -> None:
    memory, told = Memory(), list[str]()
    writer = LineWriter(memory, 1000, told.append)
    memory.error = errno.ENOSPC
    for batch in range(2):
        memory.entered.clear()
        writer.write(f"lost {batch}")
        memory.entered.wait()
    while writer.failed < 2:
        pass
    memory.error = None
    writer.write("kept")
    writer.close()
    assert memory.data == b"kept\n"
    assert (writer.written, writer.failed) == (1, 2)
    assert told == [
        "cannot be written: No space left on device; lines are being lost",
        "is written again; 2 lines were lost",
    ]


def test_a_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    file = JournalFile(path, 1 << 20, 2)
    file.write(b"one\n")
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_old_file_becomes_private_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"torn')
    path.chmod(0o644)
    file = JournalFile(path, 1 << 20, 2)
    file.write(b"whole\n")
    file.close()
    assert path.read_bytes() == b'{"torn\nwhole\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = JournalFile(path, 10, 2)
    for line in (b"aaaaaa\n", b"bbbbbb\n", b"cccccc\n", b"dddddd\n"):
        file.write(line)
    file.close()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "journal.jsonl": b"dddddd\n",
        "journal.jsonl.1": b"cccccc\n",
        "journal.jsonl.2": b"bbbbbb\n",
    }


def test_a_link_or_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match=r"journal.path: .*link cannot be written"):
        JournalFile(tmp_path / "link", 10, 2)
    with pytest.raises(ConfigError, match="it is not a regular file"):
        JournalFile(Path("/dev/null"), 10, 2)


FULL_DISK = """
import pathlib, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", sys.argv[1]], check=True)
from krie.agent.journal_file import JournalFile
path = pathlib.Path(sys.argv[1]) / "journal.jsonl"
file = JournalFile(path, 1 << 20, 2)
file.write(b"x" * 30000 + b"\\n")
before = path.read_bytes()
try:
    file.write(b"y" * 60000 + b"\\n")
except OSError as error:
    assert error.errno == 28, error
else:
    raise SystemExit("the disk was not full")
assert path.read_bytes() == before, "a line that was written in part stayed"
file.write(b"z\\n")
assert path.read_bytes() == before + b"z\\n"
print("recovered")
"""


def test_a_full_disk_leaves_whole_lines_and_is_recovered_from(tmp_path: Path) -> None:
    command = ["unshare", "-m", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "recovered\n"
