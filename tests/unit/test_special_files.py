"""Files that are none on a disk: nothing of them is read that has no end, or that reading takes away from others."""

import os
import socket
from pathlib import Path

import pytest
from krie.agent.lock import hold
from krie.errors import ConfigError, UntrustedFileError
from krie.services.spool import Spool
from krie.trust import read_trusted


def test_a_file_that_says_to_be_empty_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as /proc/kmsg, from which each reader takes messages away, and waits for more."""

    def fail(*_: object) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(os, "read", fail)
    assert Path("/proc/self/stat").stat().st_size == 0
    assert read_trusted(Path("/proc/self/stat")) == b""


def test_a_file_that_has_less_than_it_says_is_refused() -> None:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        path = next(each for each in Path("/sys/kernel").iterdir() if each.is_file() and os.access(each, os.R_OK))
    with pytest.raises(ConfigError, match=r"has \d+ bytes, and says to have 4096: no file on a disk"):
        read_trusted(path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a device", "folder"])
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.rego"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(place))
    elif kind == "folder":
        place.mkdir()
    else:
        place = Path("/dev/zero")
    if kind.startswith("link"):
        (tmp_path / "l").symlink_to(place)
        place = tmp_path / "l"

    def fail(*_: object) -> int:
        raise AssertionError("it was opened")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(UntrustedFileError, match="is not a regular file"):
        read_trusted(place)


def test_the_agents_own_files_are_files(tmp_path: Path) -> None:
    """In place of one a FIFO would be waited for."""
    tmp_path.chmod(0o700)
    os.mkfifo(tmp_path / "agent.lock")
    with pytest.raises(ConfigError, match=r"agent\.run_dir: .*/agent\.lock is not a regular file: remove it"):
        hold(tmp_path)
    os.mkfifo(tmp_path / "open.jsonl")
    with pytest.raises(UntrustedFileError, match=r"/open\.jsonl: is not a regular file"):
        Spool(tmp_path, 1 << 20, 4096, lambda count, why: None)


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40_000)
    assert read_trusted(tmp_path / "a") == bytes(range(256)) * 40_000
