"""Paths of cgroups by their id in the v2 hierarchy."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from ..events.wire import text_of
from ..kernel_files import KernelFile
from ..libc import libc

_MOST = 4096
_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h


def _open_by_handle(root: int, identity: int) -> int:
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, _FILEID_KERNFS, identity))
    return int(libc.open_by_handle_at(root, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC))


class Cgroups:
    """Resolves ids, and remembers the answers: a cgroup is never renamed."""

    def __init__(self, root: Path | None, open_by_id: Callable[[int, int], int] = _open_by_handle) -> None:
        """`root`: where the v2 tree is mounted; None where it is not, and then no path is known.

        `open_by_id` opens a cgroup of the tree by its id, or answers something negative.
        """
        self._open = open_by_id
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if root is not None else -1
        self._prefix = len(str(root)) if root is not None else 0
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
            return text_of(os.fsencode(KernelFile(f"/proc/self/fd/{descriptor}").link()[self._prefix :])) or "/"
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the tree."""
        if self._root >= 0:
            os.close(self._root)
