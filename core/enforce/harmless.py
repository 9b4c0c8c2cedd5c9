"""Harmless operations of the agent's own, by which it sees that the programs of guarded operations run."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ..kernel.perf_event import DUMMY, SOFTWARE, PerfEventAttr, perf_event_open
from ..libc import libc

_SYS = {  # x86-64
    "semget": 64,
    "semctl": 66,
    "setgid": 106,
    "sethostname": 170,
    "keyctl": 250,
    "inotify_add_watch": 254,
    "inotify_init1": 294,
    "prlimit64": 302,
}
_ATTRIBUTE = "user.krie"


def _names() -> None:
    """Make folders, links, a FIFO and attributes, and remove them."""
    with tempfile.TemporaryDirectory(prefix="krie-") as folder:
        file = Path(folder, "a")
        file.touch(0o600)
        Path(folder, "b").symlink_to("a")
        Path(folder, "c").hardlink_to(file)
        os.mkfifo(Path(folder, "d"))
        with suppress(OSError):  # file systems need not have it; the hook comes first
            os.setxattr(file, _ATTRIBUTE, b"")
        with suppress(OSError):
            os.removexattr(file, _ATTRIBUTE)


def _capability() -> None:
    """Name the host with less than no letters, which is looked at after the right to."""
    libc.syscall(_SYS["sethostname"], b"", -1)


def _group() -> None:
    """Become of the group that we are."""
    libc.syscall(_SYS["setgid"], os.getgid())


def _key() -> None:
    """Describe the user's keyring."""
    describe, of_user = 6, -4
    libc.syscall(_SYS["keyctl"], describe, of_user, None, ctypes.c_ulong(0))


def _semaphore() -> None:
    """Make one of our own, read and remove it."""
    private, remove, value = 0, 0, 12
    made = libc.syscall(_SYS["semget"], private, 1, 0o600)
    if made >= 0:
        libc.syscall(_SYS["semctl"], made, 0, value, None)
        libc.syscall(_SYS["semctl"], made, 0, remove, None)


def _descriptor() -> None:
    """Send one to ourselves."""
    one, other = socket.socketpair()
    with one, other:
        socket.send_fds(one, [b"x"], [one.fileno()])
        for each in socket.recv_fds(other, 1, 1, socket.MSG_CMSG_CLOEXEC)[1]:
            os.close(each)


def _server() -> None:
    """Bind to a name of the kernel's choice, listen, and accept nobody."""
    with socket.socket(socket.AF_UNIX) as made:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        made.bind("")
        made.listen(1)
        with suppress(BlockingIOError):
            made.accept()


def _perf_event() -> None:
    """Open one that counts nothing."""
    made = perf_event_open(PerfEventAttr(type=SOFTWARE, config=DUMMY, exclude_kernel=1, exclude_hv=1), 0, -1)
    if made >= 0:
        os.close(made)


def _scheduling() -> None:
    """Run where we may run."""
    os.sched_setaffinity(0, os.sched_getaffinity(0))


def _limit() -> None:
    """Read a limit of a child."""
    wait, done = os.pipe2(os.O_CLOEXEC)
    child = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, wait, 0)])
    try:
        os.close(wait)
        libc.syscall(_SYS["prlimit64"], child, 0, None, ctypes.create_string_buffer(16))
    finally:
        os.close(done)
        os.waitpid(child, 0)


def _watch() -> None:
    """Watch a folder, and cease to."""
    access = 1
    made = libc.syscall(_SYS["inotify_init1"], os.O_CLOEXEC)
    if made >= 0:
        libc.syscall(_SYS["inotify_add_watch"], made, b"/", access)
        os.close(made)


def _control() -> None:
    """Ask for the flags of a file, and have it closed on exec, which it is."""
    close_on_exec = 0x5451  # FIOCLEX
    made = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(made, fcntl.F_GETFL)
        fcntl.ioctl(made, close_on_exec)
    finally:
        os.close(made)


_NAMES = "inode_symlink inode_link inode_mkdir inode_rmdir inode_mknod inode_setxattr inode_removexattr".split()
CANARIES: Mapping[str, Callable[[], None]] = {
    **dict.fromkeys(_NAMES, _names),
    **dict.fromkeys(("socket_bind", "socket_listen", "socket_accept", "socket_setsockopt"), _server),
    "capable": _capability,
    "task_fix_setgid": _group,
    "key_permission": _key,
    "ipc_permission": _semaphore,
    "file_receive": _descriptor,
    "perf_event_open": _perf_event,
    "task_setscheduler": _scheduling,
    "task_prlimit": _limit,
    "path_notify": _watch,
    **dict.fromkeys(("file_fcntl", "file_ioctl"), _control),
}
"""By guarded operation."""
