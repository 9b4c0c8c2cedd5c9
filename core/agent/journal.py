"""Where lines go: the journal's file, and standard output. Neither ever makes the bus wait.

One thread writes each; a bounded queue lies between. What does not fit, or cannot be written, is counted exactly. A
disk that is full is tried again with every batch: the trouble is told once, and so is its end.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..config import JournalConfig
from .journal_file import Change, JournalFile

_GUARDED_FILES = 99
"""Rotated files, of each journal, that others are kept from."""
_log = logging.getLogger("krie")

_BATCH_BYTES = 1 << 20
_COMPANY_S = 0.01
"""How long the writer waits for more lines after the first, so that one wake-up writes many."""
LOOK_S = 0.5
"""So long at most it takes until somebody sees that a file is not in its place any more."""


class Target(Protocol):
    """Something that bytes are written to. `OSError` means that none of the last piece counts as written."""

    def write(self, data: bytes) -> None:
        """Write all of it."""

    def look(self) -> None:
        """See whether it is still what it was."""

    def reopen(self) -> None:
        """Open it again, if it can be opened."""

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
        self._closing = self._reopen = False
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

    def reopen(self) -> None:
        """Have the target opened again, between two lines."""
        self._reopen = True
        self._wake.set()

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
            if self._wake.wait(LOOK_S):
                self._wake.clear()
                if not self._closing:
                    time.sleep(_COMPANY_S)
            self._look()
            self._drain()
        self._drain()

    def _look(self) -> None:
        reopen, self._reopen = self._reopen, False
        try:
            (self._target.reopen if reopen else self._target.look)()
        except OSError as error:
            self._tell(f"cannot be written: {error.strerror}; lines are being lost")

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


class StandardOutput:
    """Standard output as a target; a reader that has gone is told by `on_gone`, once."""

    def __init__(self, on_gone: Callable[[], None], descriptor: int = 1) -> None:
        """`on_gone` is called by the writer's thread. `descriptor`: where standard output is by now."""
        self._on_gone, self._descriptor = on_gone, descriptor
        self._torn = False

    def write(self, data: bytes) -> None:
        """Write all, and wait for a slow reader: the queue before it does not."""
        view = memoryview(b"\n" + data if self._torn else data)
        done = 0
        try:
            while done < len(view):
                try:
                    done += os.write(self._descriptor, view[done:])
                except BlockingIOError:  # whoever started us made it so
                    select.select([], [self._descriptor], [])
        except BrokenPipeError:
            self._on_gone()
            raise
        finally:
            self._torn = view[done - 1] != ord("\n") if done else self._torn

    def look(self) -> None:
        """Nobody can take it away."""

    def reopen(self) -> None:
        """It has no place at which it could be opened."""

    def close(self) -> None:
        """Standard output stays open."""


class Changes:
    """What others did to the journal's files, on its way from the threads that see it to the agent."""

    def __init__(self) -> None:
        """Start with no changes found."""
        self._found: deque[Change] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, change: Change) -> None:
        """To be called by a writer's thread."""
        self._found.append(change)
        os.eventfd_write(self._wake, 1)

    def wait_on(self, poll: select.epoll) -> None:
        """Let the agent wake up for them."""
        poll.register(self._wake, select.EPOLLIN)

    def take(self) -> list[Change]:
        """Return the changes since the last call, and forget them."""
        with suppress(BlockingIOError):  # nothing new
            os.eventfd_read(self._wake)
        return [self._found.popleft() for _ in range(len(self._found))]

    def close(self) -> None:
        """To be called when no writer is left."""
        os.close(self._wake)


@dataclass(frozen=True, slots=True)
class Writers:
    """What journal lines go to. Whoever opened them closes them."""

    everything: tuple[LineWriter, ...]
    important: tuple[LineWriter, ...]
    """Only what matters."""

    @property
    def all(self) -> tuple[LineWriter, ...]:
        """The writers of everything and those of what matters."""
        return (*self.everything, *self.important)

    def reopen(self) -> None:
        """Have the files opened again."""
        for each in self.all:
            each.reopen()


def important_path(path: Path) -> Path:
    """The file for what matters, beside the journal's."""
    return path.with_name(f"{path.stem}.important{path.suffix}")


def files_of(config: JournalConfig) -> tuple[Path, ...]:
    """All files of the journal, those that it is rotated to too."""
    if not config.path:
        return ()
    path = Path(config.path)
    kept = ((path, config.keep), (important_path(path), config.important_keep))
    return tuple(
        each.with_name(f"{each.name}.{number}" if number else each.name)
        for each, keep in kept
        for number in range(min(keep, _GUARDED_FILES) + 1)
    )


def open_writers(
    config: JournalConfig,
    reader_gone: Callable[[], None] | None,
    on_change: Callable[[Change], None],
    output: int = 1,
) -> Writers:
    """The journal's files, and standard output if `reader_gone` says what to do once that is closed.

    `on_change` is called by the writers' threads. `output`: standard output's descriptor. Raises `ConfigError`.
    """
    everything: list[LineWriter] = []
    important: list[LineWriter] = []

    def file(path: Path, max_mib: int, keep: int) -> LineWriter:
        made = JournalFile(path, max_mib << 20, keep, on_change)
        return LineWriter(made, config.queue, lambda text: _log.error("journal %s %s", path, text))

    if config.path:
        path = Path(config.path)
        everything.append(file(path, config.max_mib, config.keep))
        important.append(file(important_path(path), config.important_max_mib, config.important_keep))
    if reader_gone is not None:
        everything.append(LineWriter(StandardOutput(reader_gone, output), config.queue, lambda _: None))
    return Writers(tuple(everything), tuple(important))
