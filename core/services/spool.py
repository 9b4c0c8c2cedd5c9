"""Decisions that wait on disk until a service has taken them: bounded, oldest first, kept over a restart.

Each file but the last one is what is sent: a gzipped JSON array, whose name says how many decisions it holds.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..trust import read_trusted, require_trusted

_NAME = re.compile(r"(?P<number>\d{12})-(?P<count>\d{1,9})\.json\.gz")
_OPEN = "open.jsonl"
_RATIO = 8
"""How many bytes become one, about; where fewer do, a file is split."""
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent at once."""

    path: Path
    count: int


class Spool:
    """A folder that only root can write to; used by one process, and by all of its threads."""

    def __init__(self, folder: Path, most_bytes: int, batch_bytes: int, on_drop: Callable[[int, str], None]) -> None:
        """`most_bytes`: of all files; `batch_bytes`: of one, compressed; `on_drop` gets how many were dropped, and why.

        Raises `ConfigError`, `UntrustedFileError`.
        """
        self._folder, self._most, self._batch_bytes, self._on_drop = folder, most_bytes, batch_bytes, on_drop
        self._most_open = min(batch_bytes * _RATIO, most_bytes // 2)
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._failing = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_trusted(folder)
            self._next = 1 + max((int(each.name[:12]) for each in self._files()), default=0)
            self._open = folder / _OPEN
            there = os.path.lexists(self._open)
            left = read_trusted(self._open, sys.maxsize).split(b"\n") if there else []
            self._descriptor = os.open(
                self._open, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND, 0o600
            )
        except OSError as error:
            raise ConfigError("agent.state_dir", f"{folder} cannot be used: {error.strerror}") from error
        whole = [each for each in left if _is_whole(each)]
        if torn := sum(map(bool, left)) - len(whole):
            on_drop(torn, f"they were not written to the end in {self._open}")
        for line in whole:
            self.add(line)

    def add(self, line: bytes) -> None:
        """One decision as JSON, without an end of the line."""
        with self._lock:
            self._append(line + b"\n")
            self._lines.append(line)
            self._size += len(line) + 1
            if self._size >= self._most_open:
                self._seal()

    def oldest(self) -> Batch | None:
        """What is to be sent next; what has come until now is part of it. None: there is nothing."""
        with self._lock:
            files = self._files()
            if not files and self._lines:
                self._seal()
                files = self._files()
            return Batch(files[0], _count(files[0])) if files else None

    @property
    def more(self) -> bool:
        """Whether a whole file waits, rather than what has come since."""
        with self._lock:
            return bool(self._files())

    def remove(self, batch: Batch) -> None:
        """A service has taken it, or nobody will. Raises `OSError`."""
        with self._lock:
            batch.path.unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        """Write it whole or not at all; what is not written is sent nevertheless, if this process lives so long."""
        try:
            before = os.fstat(self._descriptor).st_size
            if os.write(self._descriptor, line) < len(line):
                os.ftruncate(self._descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._failing:
                self._on_drop(0, f"decisions cannot be written to {self._folder}: {error.strerror}")
            self._failing = True
        else:
            self._failing = False

    def _seal(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        try:
            self._write(lines)
        except OSError as error:
            self._on_drop(len(lines), f"they cannot be written to {self._folder}: {error.strerror}")
        os.ftruncate(self._descriptor, 0)
        self._bound()

    def _write(self, lines: list[bytes]) -> None:
        packed = gzip.compress(b"[" + b",".join(lines) + b"]", _LEVEL)
        if len(packed) > self._batch_bytes:
            if len(lines) == 1:
                self._on_drop(1, f"it has more than {self._batch_bytes} bytes, compressed")
                return
            self._write(lines[: len(lines) // 2])
            self._write(lines[len(lines) // 2 :])
            return
        path = self._folder / f"{self._next:012}-{len(lines)}.json.gz"
        self._next += 1
        new = self._folder / "new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(packed)
        new.rename(path)

    def _bound(self) -> None:
        files = self._files()
        sizes = [each.stat().st_size for each in files]
        total = sum(sizes)
        dropped = 0
        for path, size in zip(files, sizes, strict=True):
            if total <= self._most - self._most_open:
                break
            path.unlink(missing_ok=True)
            total -= size
            dropped += _count(path)
        if dropped:
            self._on_drop(dropped, f"more than {self._most >> 20} MiB would wait; the oldest were dropped")

    def _files(self) -> list[Path]:
        return sorted(each for each in self._folder.iterdir() if _NAME.fullmatch(each.name))


def _is_whole(line: bytes) -> bool:
    """Whether a line is one decision: not where the disk was full, or the machine lost its power."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _count(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found["count"]) if found is not None else 0
