"""Paths of cgroups by their id in the v2 hierarchy."""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache
from pathlib import Path

from .wire import text_of

_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h
_libc = ctypes.CDLL(None, use_errno=True)


class Cgroups:
    """Resolves ids, and remembers the answers: a cgroup is never renamed."""

    def __init__(self, root: Path | None) -> None:
        """`root`: where the v2 tree is mounted; None where it is not, and then no path is known."""
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if root is not None else -1
        self._prefix = len(str(root)) if root is not None else 0
        self.path = lru_cache(maxsize=4096)(self._resolve)

    def _resolve(self, identity: int) -> str:
        """The path below the root, `/` for the root itself, and `?` when the cgroup is gone."""
        if self._root < 0:
            return "?"
        handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, _FILEID_KERNFS, identity))
        descriptor = _libc.open_by_handle_at(self._root, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
        if descriptor < 0:
            return "?"
        try:
            return text_of(os.fsencode(os.readlink(f"/proc/self/fd/{descriptor}")[self._prefix :])) or "/"
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the tree."""
        if self._root >= 0:
            os.close(self._root)
