"""Other processes' files in /proc, read from a procfs of this process's own that is mounted nowhere.

Whoever may mount can cover /proc/TGID, or a file in it, with what he likes. No mount is in the way below the own one;
where there is none, what is mounted below /proc is refused instead of read (openat2(2), since 5.6).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from pathlib import Path

from .libc import system_call
from .roots import open_procfs

_log = logging.getLogger("krie")
_SYS_OPENAT2, _RESOLVE_NO_XDEV = 437, 1  # x86-64
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Procfs:
    """A directory that looks like /proc. Everything raises `OSError`; `EXDEV` where something is mounted below it."""

    def __init__(self, root: int) -> None:
        """`root`: its descriptor, which is taken over."""
        self._root = root
        self.sees_mounts = True
        """Whether the kernel has what refuses to go through mounts."""
        try:
            os.close(self._open(".", _ROOT))
        except OSError:  # ENOSYS, or what a seccomp filter says
            self.sees_mounts = False

    @classmethod
    def at(cls, folder: Path) -> Procfs:
        """One that is mounted there."""
        return cls(os.open(folder, _ROOT))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._root)

    def read(self, name: str) -> bytes:
        """What a file holds; `name` is below the root: `1/stat`."""
        with open(self._open(name, _FILE), "rb", buffering=0) as file:
            found: bytes | None = file.read()
        if found is None:  # no file of a procfs
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)
        return found

    def link(self, name: str) -> str:
        """Where a symbolic link leads."""
        link = self._open(name, _LINK)
        try:
            return os.readlink("", dir_fd=link)
        finally:
            os.close(link)

    def names(self, folder: str = ".") -> list[str]:
        """What is in a directory."""
        opened = self._open(folder, _ROOT)
        try:
            return os.listdir(opened)
        finally:
            os.close(opened)

    def tgids(self) -> list[int]:
        """Of all processes."""
        return [int(each) for each in self.names() if each.isdecimal()]

    def has(self, tgid: int) -> bool:
        """Whether there is such a process or thread; also where it cannot be looked at."""
        try:
            os.close(self._open(str(tgid), _LINK))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _open(self, name: str, flags: int) -> int:
        if not self.sees_mounts:
            return os.open(name, flags, dir_fd=self._root)
        how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_NO_XDEV)
        opened = system_call(_SYS_OPENAT2, self._root, os.fsencode(name), how, ctypes.sizeof(how))
        if opened < 0:
            raise OSError(-opened, os.strerror(-opened), name)
        return opened


_own: list[Procfs] = []


def procfs() -> Procfs:
    """The one of this process, in its PID namespace; opened when it is first asked for. Raises `OSError`."""
    if not _own:
        root = open_procfs()
        made = Procfs(root) if root >= 0 else Procfs.at(Path("/proc"))
        if root < 0:
            how = "what is mounted below it is not read" if made.sees_mounts else "whoever may mount can cover it"
            _log.warning("/proc has to be read where it is mounted, since the kernel refuses another one: %s", how)
        _own.append(made)
    return _own[0]


def _forget() -> None:
    """A child may be in another PID namespace, and closes what it did not open."""
    while _own:
        _own.pop().close()


os.register_at_fork(after_in_child=_forget)
