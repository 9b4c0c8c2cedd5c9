"""Files of recorded events: compressed, given twice, cut off, or full of lines that are none."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from krie.errors import ConfigError
from krie.review.journal_reader import MOST_LINE, JournalReader, in_order, rotated

from ..recorded_journal import Recorder, replayed, sources
from .busy_journal import EVERYTHING


def test_lines_that_are_none_are_told_and_cost_no_other(tmp_path: Path) -> None:
    policy = sources(EVERYTHING)
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    good = recorder.lines[0].encode()
    bad: list[bytes] = [
        good[:200],
        b"\0" * 5000,
        b"x" * (MOST_LINE + 5),
        b'{"v":1,' + b'"a":[' * 50_000,
        b"[" * 200_000,
        b"null",
        b"{}",
        b'{"v":2}',
        good.replace(b'"v":1', b'"v":true'),
        good.replace(b'"v":1', b'"v":1.0'),
        good.replace(b'"uid":1000', b'"uid":NaN'),
        good.replace(b'"uid":1000', b'"uid":' + b"9" * 5000),
        good.replace(b'"uid":1000', b'"uid":1,"uid":1000'),
        good.replace(b'"kind":"', b'"kind":5,"x":"'),
        good.replace(b'"process":{', b'"process":[],"x":{'),
        good.replace(b'"decision":{', b'"decision":0,"x":{'),
        b"\xff\xfe" + good,
        good.replace(b"kernel/a", b"\xc3\x28"),
    ]
    (tmp_path / "j").write_bytes(
        b"\n".join([good, *(each for line in bad for each in (line, good))]) + b"\n" + good[:-9]
    )
    tally = replayed(policy, policy, [tmp_path / "j"])
    assert tally.same == tally.reproduced == len(bad) + 1
    assert sum(tally.undecided.values()) == len(bad) + 1
    assert tally.lines == 2 * len(bad) + 2


def test_special_files_and_files_given_twice_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "j").write_text("x")
    (tmp_path / "link").symlink_to("j")
    (tmp_path / "z").write_bytes(b"\x28\xb5\x2f\xfd....")
    for paths, said in (
        (["fifo"], "is not a regular file; for a pipe say -"),
        (["."], "is not a regular file"),
        (["none"], "cannot be read"),
        (["/dev/zero"], "is not a regular file"),
        (["j", "link"], "which is read already"),
        (["z"], "zstd -dc"),
    ):
        files = [tmp_path / each for each in paths]
        with pytest.raises(ConfigError, match=said), closing(JournalReader(files)) as reader:
            list(reader.pieces())


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_compressed_files_are_read_whatever_they_are_called(journal: Path, compress: Any) -> None:
    policy = sources(EVERYTHING)
    journal.write_bytes(compress(journal.read_bytes()))
    assert replayed(policy, policy, [journal]).reproduced == 686


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_standard_input_is_read_like_a_file(journal: Path, compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = sources(EVERYTHING)
    journal.write_bytes(compress(journal.read_bytes()))
    with subprocess.Popen(["cat", journal], stdout=subprocess.PIPE) as pipe:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(pipe.stdout))  # type: ignore[type-var]
        assert replayed(policy, policy, [Path("-")]).reproduced == 686


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_that_ends_early_is_told(journal: Path, compress: Any) -> None:
    policy = sources(EVERYTHING)
    whole = compress(os.urandom(1 << 16).hex().encode() + b"\n" + journal.read_bytes())
    journal.write_bytes(whole[: len(whole) // 2])
    tally = replayed(policy, policy, [journal])
    assert any("damaged" in each for each in tally.undecided)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = [
        "j.jsonl",
        "j.jsonl.2.gz",
        "j.jsonl.10",
        "j.jsonl.1",
        "j.important.jsonl",
        "k-20260102.xz",
        "k-20260101",
        "k",
    ]
    assert [each.name for each in in_order(map(Path, names))] == [
        "j.jsonl.10",
        "j.jsonl.2.gz",
        "j.jsonl.1",
        "j.jsonl",
        "j.important.jsonl",
        "k-20260101",
        "k-20260102.xz",
        "k",
    ]
    for name in (*names, "j.jsonl.strange.1", "j.jsonl.bak"):
        (tmp_path / name).touch()
    assert {each.name for each in rotated(tmp_path / "j.jsonl")} == {
        "j.jsonl",
        "j.jsonl.1",
        "j.jsonl.2.gz",
        "j.jsonl.10",
    }
