"""Paths of cgroups by their id in the v2 hierarchy."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from ..events.wire import text_of
from ..kernel_files import KernelFile
from ..libc import libc
from ..tree import Tree

_MOST = 4096
_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h


def _open_by_handle(root: int, identity: int) -> int:
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, _FILEID_KERNFS, identity))
    return int(libc.open_by_handle_at(root, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC))


def _path_of(descriptor: int) -> str:
    """In a tree that is mounted nowhere, below its root."""
    return KernelFile(f"/proc/self/fd/{descriptor}").link()


class Cgroups:
    """Resolves ids, and remembers the answers: a cgroup is never renamed."""

    def __init__(self, tree: Tree | None, open_by_id: Callable[[int, int], int] = _open_by_handle) -> None:
        """`tree`: the whole of v2; None where there is none, and then no path is known.

        `open_by_id` opens a cgroup of the tree by its id, or answers something negative.
        """
        self._open = open_by_id
        self._root = tree.open(".", os.O_RDONLY | os.O_DIRECTORY) if tree is not None else -1
        self._prefix = len(_path_of(self._root).rstrip("/")) if tree is not None else 0
        self._known: dict[int, str] = {}

    def path(self, identity: int) -> str:
        """The path below the root, `/` for the root itself, and `?` when the cgroup is gone or cannot be opened."""
        if (path := self._known.get(identity)) is not None:
            return path
        if (found := self._resolve(identity)) is None:
            return "?"
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[identity] = found
        return found

    def _resolve(self, identity: int) -> str | None:
        if self._root < 0 or (descriptor := self._open(self._root, identity)) < 0:
            return None
        try:
            return text_of(os.fsencode(_path_of(descriptor)[self._prefix :])) or "/"
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the tree."""
        if self._root >= 0:
            os.close(self._root)
