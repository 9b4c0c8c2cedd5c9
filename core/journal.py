"""Where lines go: the journal's file, and standard output. Neither ever makes the bus wait.

One thread writes each; a bounded queue lies between. What does not fit, or cannot be written, is counted exactly. A
disk that is full is tried again with every batch: the trouble is told once, and so is its end.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .config import JournalConfig
from .errors import ConfigError

_log = logging.getLogger("krie")

_BATCH_BYTES = 1 << 20
_COMPANY_S = 0.01
"""How long a first line waits for company: one wake-up of the writer for many lines."""


class Target(Protocol):
    """Something that bytes are written to. `OSError` means that none of the last piece counts as written."""

    def write(self, data: bytes) -> None:
        """Write all of it."""

    def close(self) -> None:
        """Let go of it."""


class LineWriter:
    """A bounded queue of lines and the thread that writes them."""

    def __init__(self, target: Target, queue: int, on_trouble: Callable[[str], None]) -> None:
        """`on_trouble` gets one sentence when writing fails and when it works again, from the writer's thread, and
        one from `close` when lines are left."""
        self._target, self._limit, self._on_trouble = target, queue, on_trouble
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._troubled = False
        self._accepted = 0
        self.written = 0
        self.overflowed = 0
        """Lines that found the queue full."""
        self.failed = 0
        """Lines that could not be written."""
        self._thread = threading.Thread(target=self._run, name="krie-journal", daemon=True)
        self._thread.start()

    def write(self, line: str) -> bool:
        """Queue a line, without its end. False: it was dropped, and counted."""
        if len(self._lines) >= self._limit:
            self.overflowed += 1
            return False
        self._lines.append(line)
        self._accepted += 1
        if not self._wake.is_set():
            self._wake.set()
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, as far as that works in time; a second call does nothing. Later lines are refused."""
        if self._closing:
            return
        self._closing, self._limit = True, 0
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._on_trouble(f"does not take its last lines; {self._accepted - self.written - self.failed} are lost")
        else:
            self._target.close()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._wake.clear()
            if not self._closing:
                time.sleep(_COMPANY_S)
            self._drain()
        self._drain()

    def _drain(self) -> None:
        lines = self._lines
        while lines:
            batch: list[str] = []
            size = 0
            while lines and size < _BATCH_BYTES:
                batch.append(lines.popleft())
                size += len(batch[-1])
            try:
                # A lone surrogate, which has no UTF-8, becomes the escape that JSON has for it.
                self._target.write("".join(f"{line}\n" for line in batch).encode("utf-8", "backslashreplace"))
            except OSError as error:
                self.failed += len(batch)
                self._tell(f"cannot be written: {error.strerror}; lines are being lost")
            else:
                self.written += len(batch)
                self._tell("")

    def _tell(self, trouble: str) -> None:
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            self._on_trouble(trouble or f"is written again; {self.failed} lines were lost")


class JournalFile:
    """A file that only root reads, rotated by size: journal.jsonl, journal.jsonl.1 (newer) to .KEEP (oldest)."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        """Open it. Raises `ConfigError` where it cannot be or should not be written."""
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._torn = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigError("journal.path", f"{path} cannot be written: {error.strerror}") from error

    def write(self, data: bytes) -> None:
        """Append whole lines; a line that was written in part is taken back. Raises `OSError`."""
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        if self._torn:
            data = b"\n" + data
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                count = os.write(self._descriptor, view[done:])
                if not count:
                    raise OSError(errno.EIO, "nothing was written")
                done += count
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += done
        self._torn = False

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        status = os.fstat(descriptor)
        try:
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if status.st_uid != os.geteuid():
                raise OSError(errno.EPERM, f"it belongs to user {status.st_uid}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise OSError(
                    errno.EPERM, f"other users can write it: see what they wrote, then chmod 600 {self._path}"
                )
            os.fchmod(descriptor, 0o600)
            # A line torn by a crash stays one line; ending it waits for the first write, since the disk may be full.
            self._torn = bool(status.st_size) and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
        except OSError:
            os.close(descriptor)
            raise
        self._size = status.st_size
        return descriptor

    def _rotate(self) -> None:
        if self._path.exists():  # if not, an earlier try got as far as that: the older files must not move again
            for number in range(self._keep - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.rename(self._numbered(number + 1))
            self._path.rename(self._numbered(1))
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class StandardOutput:
    """Standard output as a target; a reader that has gone is told by `on_gone`, once."""

    def __init__(self, on_gone: Callable[[], None]) -> None:
        """`on_gone` is called by the writer's thread."""
        self._on_gone = on_gone
        self._torn = False

    def write(self, data: bytes) -> None:
        """Write all, and wait for a slow reader: the queue before it does not."""
        view = memoryview(b"\n" + data if self._torn else data)
        done = 0
        try:
            while done < len(view):
                try:
                    done += os.write(1, view[done:])
                except BlockingIOError:  # whoever started us made it so
                    select.select([], [1], [])
        except BrokenPipeError:
            self._on_gone()
            raise
        finally:
            self._torn = view[done - 1] != ord("\n") if done else self._torn

    def close(self) -> None:
        """Standard output stays open."""


@dataclass(frozen=True, slots=True)
class Writers:
    """What journal lines go to. Whoever opened them closes them."""

    everything: tuple[LineWriter, ...]
    important: tuple[LineWriter, ...]
    """Only what matters."""

    @property
    def all(self) -> tuple[LineWriter, ...]:
        """Both."""
        return (*self.everything, *self.important)


def important_path(path: Path) -> Path:
    """The file for what matters, beside the journal's."""
    return path.with_name(f"{path.stem}.important{path.suffix}")


def open_writers(config: JournalConfig, reader_gone: Callable[[], None] | None) -> Writers:
    """The journal's files, and standard output if `reader_gone` says what to do once that is closed.

    Raises `ConfigError`.
    """
    everything: list[LineWriter] = []
    important: list[LineWriter] = []

    def file(path: Path, max_mib: int, keep: int) -> LineWriter:
        made = JournalFile(path, max_mib << 20, keep)
        return LineWriter(made, config.queue, lambda text: _log.error("journal %s %s", path, text))

    if config.path:
        path = Path(config.path)
        everything.append(file(path, config.max_mib, config.keep))
        important.append(file(important_path(path), config.important_max_mib, config.important_keep))
    if reader_gone is not None:
        everything.append(LineWriter(StandardOutput(reader_gone), config.queue, lambda _: None))
    return Writers(tuple(everything), tuple(important))
