"""What is read of a process that can have the kernel wait."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.processes.timely_reader import MOST, TimelyReader


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A file that gives no answer, until the test is over."""
    file = tmp_path / "environ"
    os.mkfifo(file)
    before = threading.active_count()
    yield file
    while threading.active_count() > before:
        writer = os.open(file, os.O_RDWR | os.O_NONBLOCK)
        time.sleep(0.01)
        os.close(writer)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "environ").write_bytes(b"A=1\0")
    reader = TimelyReader()
    assert reader.read("environ", (tmp_path / "environ").read_bytes) == b"A=1\0"
    assert reader.read("none", (tmp_path / "none").read_bytes) is None


def test_who_gives_no_answer_holds_nobody_up(silent: Path) -> None:
    began = time.monotonic()
    assert TimelyReader(0.05).read("environ", silent.read_bytes) is None
    assert time.monotonic() - began < 5


def test_many_who_give_no_answer_cost_a_few_threads(silent: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = threading.active_count()
    reader = TimelyReader(0.01)
    for _ in range(3 * MOST):
        assert reader.read("environ", silent.read_bytes) is None
    assert threading.active_count() - before <= MOST
    assert caplog.text.count("environ is not read: 16 others give no answer") == 2 * MOST
