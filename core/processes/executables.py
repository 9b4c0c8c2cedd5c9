"""`data.executables`: names for executables, by file and not by path, so that nobody can take a name by a bind mount.

Each file is held open as long as its name is in force: its inode number cannot be given to another file meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ..events.identity import Identity
from ..kernel_files import KernelFile
from ..libc import libc

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_OVERLAYFS = 0x794C7630  # OVERLAYFS_SUPER_MAGIC
_STATFS_BYTES = 256  # of struct statfs, and some


@dataclass(frozen=True, slots=True)
class Executables:
    """The names of `[executables]` that are in force."""

    names: Mapping[Identity, str]
    unresolved: Mapping[str, str]
    """Names whose file could not be opened, with the reason; no process gets them."""
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Let go of the files."""
        for each in self.descriptors:
            os.close(each)


def resolve(paths: Mapping[str, str], identify: Callable[[int], Identity]) -> Executables:
    """Open each file and learn which one it is to the kernel. An upgraded file is another one until a reload.

    Raises what `identify` raises; then nothing stays open.
    """
    names: dict[Identity, str] = {}
    unresolved: dict[str, str] = {}
    with ExitStack() as opened:
        descriptors: list[int] = []
        for name, path in paths.items():
            try:
                descriptor = _open(path)
            except OSError as error:
                unresolved[name] = f"{path}: {error.strerror}"
                continue
            opened.callback(os.close, descriptor)
            descriptors.append(descriptor)
            identity = identify(descriptor)
            if identity in names:
                unresolved[name] = f"{path} is the same file as that of {names[identity]!r}"
            else:
                names[identity] = name
        opened.pop_all()  # they are the answer's from here on
    return Executables(names, unresolved, tuple(descriptors))


def _open(path: str) -> int:
    """A descriptor by which the kernel side knows the file. Raises `OSError`."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not (_is_overlaid(descriptor) and stat.S_ISREG(os.fstat(descriptor).st_mode)):
        return descriptor
    try:  # the file below, which has the identity, belongs to what is really open
        return _opened_again(descriptor)
    finally:
        os.close(descriptor)


def _opened_again(descriptor: int) -> int:
    """Open the file of a descriptor for reading, by a link that leads out of /proc as no `KernelFile` does. Where /proc
    has to be read as it is mounted, something may be mounted over that link: then it is another file."""
    links = KernelFile("/proc/self/fd").descriptor(os.O_DIRECTORY)
    try:
        opened = os.open(str(descriptor), _READ, dir_fd=links)
    finally:
        os.close(links)
    if not os.path.samestat(os.fstat(opened), os.fstat(descriptor)):
        os.close(opened)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return opened


def _is_overlaid(descriptor: int) -> bool:
    status = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.fstatfs(descriptor, status):
        return True
    return int.from_bytes(status.raw[:8], "little") == _OVERLAYFS
