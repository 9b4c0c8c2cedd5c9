"""A procfs of this process's own, in whose way nothing is mounted."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie import procfs as module
from krie import tree
from krie.procfs import Procfs, procfs

COVERED = """
import os, signal, subprocess, sys
from krie.enforce import kill
from krie.events.identity import Key
from krie import procfs as module
from krie import tree
from krie.procfs import procfs
from krie.processes.proc import TICK_NS, is_there, started

if sys.argv[2] == "fallback":
    module.open_procfs = lambda: -1
victim = subprocess.Popen(["sleep", "60"])
begin = started(victim.pid)
key = Key(victim.pid, begin * TICK_NS)
signal.alarm(30)  # who reads a FIFO waits for ever
mount, place = sys.argv[1].split(), f"/proc/{victim.pid}"
if mount[-1].endswith("fifo"):
    os.mkfifo(mount[-1])
subprocess.run(["mount", *mount, place if "tmpfs" in mount else f"{place}/stat"], check=True)
assert is_there(key)
assert not kill.gone(key, lambda _: 0)
assert procfs().has(victim.pid)
try:
    with kill.held(key, lambda _: 0) as descriptor:
        print("killed" if kill.Killer().kill(descriptor) else "signalled")
except OSError as error:
    print(error)
victim.kill()
victim.wait()
assert not is_there(key)
assert kill.gone(key, lambda _: 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Procfs]:
    made = Procfs.at(tmp_path)
    yield made
    made.close()


def test_it_shows_the_processes_of_this_namespace() -> None:
    own = procfs()
    assert own is procfs()
    tgid = os.getpid()
    assert tgid in own.tgids()
    assert own.read(f"{tgid}/stat").startswith(b"%d (" % tgid)
    assert own.link(f"{tgid}/exe") == os.path.realpath(sys.executable)
    assert "0" in own.names(f"{tgid}/fdinfo")
    assert (own.has(tgid), own.has(1 << 30)) == (True, False)
    with pytest.raises(FileNotFoundError):
        own.read("1073741824/stat")


def test_a_child_has_one_of_its_own() -> None:
    """It closes what it has from its parent, and may get the number of the descriptor for something else."""
    procfs()
    child = os.fork()
    if not child:
        os._exit(0 if not module._own and procfs().has(os.getpid()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_gives_no_answer_holds_nobody_up(folder: Procfs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stat")
    assert folder.read("stat") == b""
    writer = os.open(tmp_path / "stat", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            folder.read("stat")
    finally:
        os.close(writer)


def test_no_other_file_system_is_read() -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - by its number
        Procfs.at(Path("/")).read("proc/version")
    assert raised.value.errno == errno.EXDEV


def test_where_the_kernel_has_no_such_call_it_reads_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "system_call", lambda *_: -errno.ENOSYS)
    (tmp_path / "5").mkdir()
    (tmp_path / "5/stat").write_bytes(b"5")
    made = Procfs.at(tmp_path)
    assert (made.sees_mounts, made.tgids(), made.read("5/stat"), made.has(6)) == (False, [5], b"5", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("mount", ["-t tmpfs none", "--bind /dev/null", "--bind /dev/zero", "--bind {}/fifo"])
def test_who_covers_what_it_shows_of_him_is_killed_all_the_same(mount: str, tmp_path: Path) -> None:
    assert covered(mount.format(tmp_path), "own") == "killed\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("mount", ["-t tmpfs none", "--bind /dev/null", "--bind /dev/zero", "--bind {}/fifo"])
def test_where_there_is_none_it_is_never_believed_that_he_has_ended(mount: str, tmp_path: Path) -> None:
    told = covered(mount.format(tmp_path), "fallback")
    assert "is still this process cannot be read in /proc: Invalid cross-device link" in told


def covered(mount: str, how: str) -> str:
    """In a mount namespace that ends with the process."""
    command = ("unshare", "-m", sys.executable, "-c", COVERED, mount, how)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
