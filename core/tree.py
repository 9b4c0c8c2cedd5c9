"""A directory below which nothing is read but what is in its own file system, whatever is mounted there."""

from __future__ import annotations

import ctypes
import errno
import os
from io import BufferedReader
from pathlib import Path
from typing import Self, cast

from .libc import system_call
from .roots import PASSING

_SYS_OPENAT2, _RESOLVE_NO_XDEV = 437, 1  # x86-64
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ALWAYS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def opened(descriptor: int, buffering: int = -1) -> BufferedReader:
    """The descriptor as a file for reading, which closes it. Raises `IsADirectoryError`, having closed it."""
    try:
        return cast("BufferedReader", open(descriptor, "rb", buffering=buffering))
    except OSError:  # open() leaves open what it was given
        os.close(descriptor)
        raise


class Tree:
    """What is below a directory. Everything raises `OSError`; `EXDEV` where something is mounted below it."""

    def __init__(self, root: int) -> None:
        """`root`: its descriptor, which is taken over."""
        self._root = root
        self.is_mounted = True
        """Whether others may mount something there."""
        self.sees_mounts = True
        """Whether the kernel has what refuses to go through mounts (openat2(2), since 5.6)."""
        try:
            os.close(self._open(".", _ROOT))
        except OSError as error:  # ENOSYS, or what a seccomp filter says
            if error.errno in PASSING:
                os.close(root)
                raise
            self.sees_mounts = False

    @classmethod
    def at(cls, folder: Path) -> Self:
        """One that is mounted there."""
        return cls(os.open(folder, _ROOT))

    @classmethod
    def own(cls, root: int, point: str) -> Self:
        """One that is mounted nowhere; where the kernel refuses that, `root` is -1, and it is the one at `point`."""
        made = cls(root) if root >= 0 else cls.at(Path(point))
        made.is_mounted = root < 0
        return made

    def close(self) -> None:
        """Let go of it."""
        os.close(self._root)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a file; `name` is below the root: `1/stat`. Waits for nobody."""
        return self._open(name, flags | (_LINK if flags & os.O_PATH else _ALWAYS))

    def read(self, name: str) -> bytes:
        """What a file holds."""
        with opened(self.open(name), buffering=0) as file:
            found: bytes | None = file.read()
        if found is None:  # no file of the kernel's own
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write to a file, by one call."""
        file = self.open(name, os.O_WRONLY)
        try:
            os.write(file, content)
        finally:
            os.close(file)

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

    def _open(self, name: str, flags: int) -> int:
        if not self.sees_mounts:
            return os.open(name, flags, dir_fd=self._root)
        how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_NO_XDEV)
        opened = system_call(_SYS_OPENAT2, self._root, os.fsencode(name), how, ctypes.sizeof(how))
        if opened < 0:
            raise OSError(-opened, os.strerror(-opened), name)
        return opened
