"""Files of the kernel's own below /proc and /sys: read and written so that nothing that is mounted over them matters.

Whoever may mount can cover /proc/modules, say, with what he likes, or with a FIFO that blocks whoever opens it. Each of
these file systems is opened once more, mounted nowhere; see `krie.tree` for where the kernel refuses that.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from .procfs import let_go as let_go_of_procfs
from .procfs import procfs
from .roots import open_root
from .tree import Tree, opened

_log = logging.getLogger("krie")
_PROC = "/proc"
_TYPES = {
    "/sys": "sysfs",
    "/sys/fs/selinux": "selinuxfs",
    "/sys/kernel/debug": "debugfs",
    "/sys/kernel/debug/tracing": "tracefs",
    "/sys/kernel/security": "securityfs",
    "/sys/kernel/tracing": "tracefs",
}
"""By where it is usually mounted, a file system that is the same wherever it is mounted."""
_own: dict[str, Tree | None] = {}
"""By that place; None where there is none, which is kept, since asking has the kernel run modprobe."""


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A file or folder, by its path where these are usually mounted. Has what it needs of `pathlib.Path`.

    Everything raises `OSError`: `EXDEV` where something is mounted in the way.
    """

    path: str

    def __str__(self) -> str:
        """The path."""
        return self.path

    def __truediv__(self, name: str) -> KernelFile:
        """One in this folder."""
        return KernelFile(f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def descriptor(self, flags: int = os.O_RDONLY) -> int:
        """Open it as open(2) does; waits for nobody."""
        with self._beneath() as (tree, below):
            return tree.open(below, flags)

    def open(self, _mode: Literal["rb"] = "rb") -> BufferedReader:
        """Open it for reading piece by piece."""
        return opened(self.descriptor())

    def read_bytes(self) -> bytes:
        """What it holds."""
        with self._beneath() as (tree, below):
            return tree.read(below)

    def read_text(self) -> str:
        """The same as text."""
        return os.fsdecode(self.read_bytes())

    def write_bytes(self, content: bytes) -> None:
        """Write it, by one call."""
        with self._beneath() as (tree, below):
            tree.write(below, content)

    def link(self) -> str:
        """Where a symbolic link leads."""
        with self._beneath() as (tree, below):
            return tree.link(below)

    def stat(self) -> os.stat_result:
        """Of a symbolic link, its own."""
        file = self.descriptor(os.O_PATH)
        try:
            return os.fstat(file)
        finally:
            os.close(file)

    def exists(self) -> bool:
        """Whether it is there. Raises `OSError` where that is not known."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self.stat()
            return True
        return False

    def iterdir(self) -> Iterator[KernelFile]:
        """What is in the folder."""
        with self._beneath() as (tree, below):
            return iter([self / each for each in tree.names(below)])

    @contextmanager
    def _beneath(self) -> Iterator[tuple[Tree, str]]:
        """The file system, and the path there."""
        try:
            if self.path == _PROC or self.path.startswith(f"{_PROC}/"):
                yield procfs(), self.path.removeprefix(_PROC).lstrip("/") or "."
                return
            above = (self.path[:end] for end in range(len(self.path), 0, -1) if self.path[end : end + 1] in ("/", ""))
            point = next((each for each in above if each in _TYPES), None)
            if point is None:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            yield _tree(point), self.path.removeprefix(point).lstrip("/") or "."
        except OSError as error:
            error.filename = self.path
            raise


def boot_id() -> str:
    """What the kernel calls itself since this machine was started."""
    return KernelFile("/proc/sys/kernel/random/boot_id").read_text().strip()


AnyFile = Path | KernelFile
"""The kernel's, or one that looks like it."""


def _tree(point: str) -> Tree:
    """The file system that is usually mounted there."""
    if point not in _own:
        try:
            _own[point] = Tree.own(open_root(_TYPES[point]), point)
        except FileNotFoundError:
            _own[point] = None
    if (tree := _own[point]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return tree


def tell_what_can_be_covered(cgroups: Tree | None = None) -> None:
    """Warn where the kernel refuses to open /proc, /sys or cgroup v2 once more. Raises `OSError`."""
    further = () if cgroups is None else (("cgroup v2", cgroups),)
    for point, tree in (("/proc", procfs()), ("/sys", _tree("/sys")), *further):
        if tree.is_mounted:
            how = "what is mounted below it is not read" if tree.sees_mounts else "whoever may mount can cover it"
            _log.warning("%s has to be read where it is mounted, since the kernel refuses another one: %s", point, how)


def let_go() -> None:
    """Close all that was opened to get there, until it is asked for again."""
    let_go_of_procfs()
    while _own:
        if (tree := _own.popitem()[1]) is not None:
            tree.close()


os.register_at_fork(after_in_child=let_go)
