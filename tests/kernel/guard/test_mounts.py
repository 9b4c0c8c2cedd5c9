"""The mounts that an agent needs which guards itself stay, and stay uncovered. In guests only."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
libc = ctypes.CDLL(None, use_errno=True)


def test_its_mounts_stay(guarding: RunningAgent, tmp_path: Path) -> None:
    """Neither taken away nor covered. Another mount namespace may do what it likes."""
    covered, moved = f"mount -t tmpfs none {guarding.run_dir}", f"mount --move /sys {tmp_path}"
    harms = ("umount -l /proc", "umount -l /sys", covered, moved)
    for harm in harms:
        assert subprocess.run(harm.split(), capture_output=True, check=False).returncode
    (tmp_path / "root").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "root"], check=True)
    try:
        (tmp_path / "root/old").mkdir()
        pivot = [f"{tmp_path}/root".encode(), f"{tmp_path}/root/old".encode()]
        assert libc.syscall(155, *pivot) == -1
        assert ctypes.get_errno() == errno.EPERM
    finally:
        subprocess.run(["umount", tmp_path / "root"], check=True)
    attempts(guarding, "mounts_changed", len(harms) + 1, by_us=False)
    script = "umount -l /sys && mount -t tmpfs none /run && mount -t tmpfs none /proc"
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True)


def test_nor_does_move_mount_take_or_cover_them(guarding: RunningAgent, tmp_path: Path) -> None:
    """By the system call itself: mount(8) may use another one. By paths, by descriptors, and beneath what is there."""
    move_mount, open_tree, clone, empty, beneath, here = 429, 428, 1, 4, 0x200, -100
    told = sum(each["event"]["count"] for each in guarding.lines("krie.guarded", _mounts))
    sys_ = os.open("/sys", os.O_PATH)
    tree = libc.syscall(open_tree, here, bytes(tmp_path), clone)
    assert tree >= 0, os.strerror(ctypes.get_errno())
    moves = [
        (here, b"/sys", here, bytes(tmp_path), 0),
        (sys_, b"", here, bytes(tmp_path), empty),
        (here, bytes(guarding.run_dir), here, bytes(tmp_path), 0),
        (tree, b"", here, bytes(guarding.run_dir), empty),
        (tree, b"", here, bytes(guarding.folder), empty),
        (tree, b"", here, b"/sys", empty | beneath),
    ]
    try:
        for each in moves:
            assert libc.syscall(move_mount, *each) == -1, each
            if not each[4] & beneath:  # which kernels before 6.5 do not know
                assert ctypes.get_errno() == errno.EPERM, each
        target = tmp_path / "target"
        target.mkdir()
        assert libc.syscall(move_mount, tree, b"", here, bytes(target), empty) == 0  # what is nobody's business
        subprocess.run(["umount", "-l", target], check=True)  # `tree` is still open
    finally:
        os.close(tree)
        os.close(sys_)
    attempts(guarding, "mounts_changed", told + len(moves) - 1, by_us=False)


def test_what_another_namespace_covers_is_told(guarding: RunningAgent) -> None:
    """Nothing refuses that, where mounts are shared."""
    folder = guarding.folder / "state"
    covered = f"mount -t tmpfs none {folder} && echo covered && read -r _; umount {folder}"
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", covered]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"covered\n"
            attempts(guarding, "folders_covered", by_us=False)
            other.communicate()  # its input ends
    finally:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    assert (folder / "agent.json").exists()


def _mounts(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "mounts_changed")
