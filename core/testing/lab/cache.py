"""Where fetched and built kernels lie. Whatever is half done is never seen under its name."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Cache:
    """A folder of finished things, each a folder by its name."""

    def __init__(self, root: Path | None = None) -> None:
        """`root`: by default `krie/lab` in the user's cache folder."""
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self.root = root or Path(base) / "krie/lab"

    def folder(self, name: str) -> Path:
        """Where the thing of this name lies, or will."""
        return self.root / name

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Wait for whoever else makes the thing of this name."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.root / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """An empty folder that takes the name when all went well, and vanishes otherwise. Hold `locked` meanwhile."""
        partial = self.root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of somebody who was killed
        partial.mkdir()
        try:
            yield partial
            shutil.rmtree(self.folder(name), ignore_errors=True)
            partial.rename(self.folder(name))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(each.lstat().st_size for each in folder.rglob("*") if not each.is_dir())
