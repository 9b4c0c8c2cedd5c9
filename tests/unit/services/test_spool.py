"""What waits on disk until a service takes it: in order, within its limit, and counted where it is dropped."""

import contextlib
import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.services.decisions import Drops
from krie.services.spool import Spool

from .console import batches, line, spool


def test_what_waits_is_kept_in_order_over_a_restart(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops)
    for number in range(5):
        made.add(line(number))
    assert next(batches(made)) == [0, 1, 2, 3, 4]  # which is not sent, so that it stays
    made.add(line(5))
    with (tmp_path / "spool/open.jsonl").open("ab") as file:
        file.write(b'{"torn')
    again = spool(tmp_path, drops)
    again.add(line(6))
    assert list(batches(again)) == [[0, 1, 2, 3, 4], [5, 6]]
    assert drops.take() == (1, f"they were not written to the end in {tmp_path}/spool/open.jsonl")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # spools have files open there as long as they live


def test_a_full_disk_is_told_once_and_tears_no_line(small_disk: Path) -> None:
    drops = Drops()
    made = Spool(small_disk / "spool", 1 << 20, 1 << 16, drops.put)
    made.add(line(0))
    rest = small_disk / "rest"
    with contextlib.suppress(OSError), rest.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    for number in range(1, 9):
        made.add(line(number, 600))
    count, why = drops.take()
    assert (count, "No space" in why) == (0, True)
    rest.unlink()
    made.add(line(9))
    assert drops.take() == (0, "")
    with (small_disk / "spool/open.jsonl").open("ab") as file:  # as after a loss of power
        file.write(bytes(100) + b"\n")
    again = Spool(small_disk / "spool", 1 << 20, 1 << 16, drops.put)
    ((first, *others),) = batches(again)
    assert (first, others[-1]) == (0, 9)
    assert drops.take()[0] == 1


@pytest.mark.parametrize(("most", "batch"), [(1 << 20, 1 << 24), (1 << 20, 1 << 16)])
def test_all_that_waits_is_within_the_limit(most: int, batch: int, tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, most, batch)
    for number in range(1500):
        made.add(line(number, 1000))
        if number % 100 == 0:
            assert sum(each.stat().st_size for each in (tmp_path / "spool").iterdir()) <= most
    kept = [number for each in batches(made) for number in each]
    assert kept == list(range(1500 - len(kept), 1500))
    assert drops.take()[0] == 1500 - len(kept) > 0


def test_a_batch_is_no_larger_than_one_may_be(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, batch=4096)
    for number in range(60):
        made.add(line(number, 500))
    made.add(line(60, 50_000))
    found = []
    while (batch := made.oldest()) is not None:
        assert batch.path.stat().st_size <= 4096
        found += [each["n"] for each in json.loads(gzip.decompress(batch.path.read_bytes()))]
        made.remove(batch)
    assert found == list(range(60))
    assert drops.take() == (1, "it has more than 4096 bytes, compressed")


def test_beyond_the_limit_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, most=20_000, batch=4096)
    for number in range(200):
        made.add(line(number, 500))
    found = [number for batch in batches(made) for number in batch]
    count, why = drops.take()
    assert found == list(range(count, 200))
    assert count > 100
    assert "the oldest were dropped" in why
    assert drops.take() == (0, "")
