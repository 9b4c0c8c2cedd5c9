"""The files of an agent that guards itself stay as they are. In guests only."""

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHi", *each) for each in ((1, 6, -1), (2, 6, 65534), (4, 0, -1), (16, 6, -1), (32, 0, -1))
)
"""An access control list: another user may write, which the mode shows as its group's bits."""
FS_IOC_SETFLAGS, FS_IOC_SETVERSION = 0x40086602, 0x40087602
FIFREEZE, FS_IOC_SHUTDOWN = 0xC0045877, 0x8004587D


def control(path: Path, command: int) -> None:
    """Of a file that was opened for reading only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, command, bytes(8))
    finally:
        os.close(descriptor)


def test_its_files_stay(guarding: RunningAgent, link: Path) -> None:
    state = guarding.folder / "state/agent.json"
    other = link.with_name("other")
    other.symlink_to("/etc")
    harms: tuple[Callable[[], object], ...] = (
        lambda: os.open(guarding.journal, os.O_WRONLY),
        lambda: guarding.journal.unlink(),
        lambda: guarding.journal.rename(guarding.folder / "away"),
        lambda: os.open(state, os.O_WRONLY),
        lambda: state.unlink(),
        lambda: state.parent.rename(guarding.folder / "elsewhere"),
        lambda: (guarding.run_dir / "agent.sock").unlink(),
        lambda: os.truncate(guarding.journal, 0),
        lambda: os.close(os.open(guarding.journal, os.O_RDONLY | os.O_TRUNC)),
        lambda: guarding.journal.chmod(0o666),
        lambda: os.chown(guarding.journal, 65534, 65534),
        lambda: os.utime(state),
        lambda: state.parent.chmod(0o777),
        lambda: (guarding.folder / "link").hardlink_to(guarding.journal),
        lambda: (state.parent / "agent.new").symlink_to("/etc/passwd"),
        lambda: (state.parent / "agent.new").mkdir(),
        lambda: os.mkfifo(state.parent / "agent.new"),
        lambda: os.setxattr(guarding.journal, "system.posix_acl_access", ACL),
        lambda: os.removexattr(guarding.run_dir, "system.posix_acl_access"),
        lambda: control(guarding.journal, FS_IOC_SETFLAGS),
        lambda: control(state.parent, FS_IOC_SETVERSION),
        lambda: control(guarding.folder, FS_IOC_SHUTDOWN),
        lambda: guarding.folder.rename(guarding.folder.with_name("elsewhere")),
        state.parent.rmdir,
        guarding.run_dir.rmdir,
        link.unlink,
        lambda: link.rename(link.with_name("elsewhere")),
        lambda: other.replace(link),
        lambda: link.parent.rename(link.parent.with_name("elsewhere")),
    )
    size = guarding.journal.stat().st_size
    for harm in harms:
        with pytest.raises(PermissionError):
            harm()
    assert guarding.journal.stat().st_size >= size > 0
    attempts(guarding, "files_changed", len(harms))


def test_nor_does_a_program_of_32_bits_change_them(guarding: RunningAgent, tmp_path: Path) -> None:
    """Such calls have an entry of their own, and on some kernels a hook."""
    program = tmp_path / "chattr32"
    subprocess.run(["gcc", "-O1", "-o", program, Path(__file__).with_name("chattr32.c")], check=True)
    own = tmp_path / "own"
    own.touch()
    for path, answer in ((own, {0, -errno.ENOTTY, -errno.EOPNOTSUPP}), (guarding.journal, {-errno.EPERM})):
        done = subprocess.run([program, path], capture_output=True, text=True, check=True)
        assert int(done.stdout) in answer, path
    attempts(guarding, "files_changed", by_us=False)
    guarding.wait("krie.guarded", lambda line: line["event"]["stranger"]["exe"] == str(program))


def test_who_freezes_their_file_system_is_told(guarding: RunningAgent, tmp_path: Path) -> None:
    """Nobody is refused that: backups do it. Of another file system it is nobody's business."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    try:
        for folder in (tmp_path, guarding.folder):
            with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):  # the guest's cannot be frozen
                control(folder, FIFREEZE)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    attempts(guarding, "files_frozen")
    guarding.settle()
    lines = guarding.lines("krie.guarded", lambda line: line["event"]["attempt"] == "files_frozen")
    assert [line["event"]["count"] for line in lines] == [1]
