"""The journal's file: rotated by size, and noticed and opened again where somebody moves, removes or changes it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

_STRANGERS = 16
"""So many things that somebody put in the file's place are set aside; further ones stay where they are."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody else did to a file of the journal."""

    path: Path
    """Where the file belongs."""
    state: str
    """One of `krie.events.agent.JOURNAL_STATES`."""
    lines: int = 0
    """Lines that went elsewhere: written since the file was last seen where it belongs."""
    bytes: int = 0
    """By so much it became smaller or larger; of a file that was removed, what it held."""
    detail: str = ""


def _ignore(_: Change) -> None:
    """For who only writes."""


class JournalFile:
    """A file that only root reads, rotated by size: journal.jsonl, journal.jsonl.1 (newer) to .KEEP (oldest)."""

    def __init__(self, path: Path, max_bytes: int, keep: int, on_change: Callable[[Change], None] = _ignore) -> None:
        """Open it. `on_change` is called by whoever calls `write` and `look`.

        Raises `ConfigError` where the file cannot be or should not be written.
        """
        self._path, self._max_bytes, self._keep, self._on_change = path, max_bytes, keep, on_change
        self._torn = False
        self._elsewhere = 0  # lines
        self._why_away = self._why_it_grows = ""
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigError("journal.path", f"{path} cannot be written: {error.strerror}") from error

    def write(self, data: bytes) -> None:
        """Append whole lines; a line that was written in part is taken back. Raises `OSError`."""
        self.look()
        if self._size and self._size + len(data) > self._max_bytes and not self._why_away:
            self._rotate_if_possible()
        self._append(data)
        self._elsewhere += data.count(b"\n")
        if self._is_in_its_place():
            self._elsewhere = 0
        elif not os.fstat(self._descriptor).st_nlink:
            self._elsewhere = 0
            self.look()  # which opens it again, or raises
            self._append(data)  # it was removed meanwhile, and these lines with it

    def look(self) -> None:
        """See whether the file is still the one in its place, and as this process left it; if not, open it again.

        Raises `OSError` where that is impossible and what is written now would be lost. If it is not, since the file
        that was moved away is still there, writing goes on in that.
        """
        if self._is_in_its_place():
            self._why_away = ""
            self._see_size()
        else:
            self._come_back()

    def reopen(self) -> None:
        """Open the file again, whatever is known of it."""
        self.look()
        if not self._why_away:
            self._take(self._open())

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _is_in_its_place(self) -> bool:
        mine, there = os.fstat(self._descriptor), _what_is_at(self._path)
        return there is not None and (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _see_size(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size != self._size:
            more = size - self._size
            detail = f"somebody else wrote {more} bytes" if more > 0 else f"{-more} bytes of its end were cut off"
            self._on_change(
                Change(self._path, "changed" if size else "emptied", self._elsewhere, abs(more), detail if size else "")
            )
            self._know(size)

    def _come_back(self) -> None:
        mine, there = os.fstat(self._descriptor), _what_is_at(self._path)
        state = "replaced" if there is not None else "moved" if mine.st_nlink else "removed"
        lost = 0 if mine.st_nlink else mine.st_size
        try:
            descriptor, detail = self._open_anew()
        except OSError as error:
            why = f"it cannot be opened again: {error.strerror}"
            if why != self._why_away:
                self._why_away = why
                self._on_change(Change(self._path, state, self._elsewhere, lost, why))
                self._elsewhere = 0
            if not mine.st_nlink:
                raise
            return
        self._take(descriptor)
        self._on_change(Change(self._path, "opened" if self._why_away else state, self._elsewhere, lost, detail))
        self._why_away, self._elsewhere = "", 0

    def _take(self, descriptor: int) -> None:
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _append(self, data: bytes) -> None:
        view = memoryview(b"\n" + data if self._torn else data)
        done = 0
        try:
            while done < len(view):
                count = os.write(self._descriptor, view[done:])
                if not count:
                    raise OSError(errno.EIO, "nothing was written")
                done += count
        except OSError:
            self._take_back(done)
            raise
        self._size += done
        self._torn = False

    def _take_back(self, done: int) -> None:
        """Cut off what was written of a piece that does not fit, but nothing else: a cut beyond the end makes NULs."""
        size = os.fstat(self._descriptor).st_size
        if done and size == self._size + done:
            os.ftruncate(self._descriptor, self._size)
        elif done:
            self._torn = True

    def _open_anew(self) -> tuple[int, str]:
        """The descriptor, and what was done for it."""
        try:
            return self._open(), ""
        except OSError as error:
            there = _what_is_at(self._path)
            if there is None:
                raise
            aside = self._aside(error)
            self._path.rename(aside)
            what = f"{_kind(there.st_mode)} was in its place ({error.strerror}), which is {aside.name} now"
            return self._open(), what

    def _aside(self, error: OSError) -> Path:
        """A free name for what somebody put in the file's place. It may be of use to somebody: it is not removed."""
        for number in range(1, _STRANGERS + 1):
            aside = self._path.with_name(f"{self._path.name}.strange.{number}")
            if _what_is_at(aside) is None:
                return aside
        raise error

    def _open(self) -> int:
        """A descriptor of the file, which is made if need be; its size is known then. Raises `OSError`."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
            if status.st_nlink > 1:
                raise OSError(errno.EMLINK, "it has another name, too (a hard link)")
            os.fchmod(descriptor, 0o600)
            self._know(status.st_size, descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _know(self, size: int, descriptor: int = -1) -> None:
        """Note the file's size. A line torn by a crash stays one line; ending it waits, since the disk may be full."""
        at = self._descriptor if descriptor < 0 else descriptor
        self._torn = bool(size) and os.pread(at, 1, size - 1) != b"\n"
        self._size = size

    def _rotate_if_possible(self) -> None:
        """Where it is not, the file grows: no line is lost for that."""
        try:
            self._rotate()
        except OSError as error:
            why = f"it cannot be rotated: {error.strerror}"
            if why != self._why_it_grows:
                self._on_change(Change(self._path, "stuck", detail=why))
            self._why_it_grows = why
        else:
            self._why_it_grows = ""

    def _rotate(self) -> None:
        numbers = range(1, self._keep + 1)
        free = next((each for each in numbers if _what_is_at(self._numbered(each)) is None), self._keep)
        for number in range(free - 1, 0, -1):  # those behind a gap need not move: an earlier try may have made it
            self._numbered(number).rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))
        try:
            self._take(self._open())
        except OSError:
            self._numbered(1).rename(self._path)
            raise

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _what_is_at(path: Path) -> os.stat_result | None:
    """Without following a link."""
    try:
        return path.lstat()
    except OSError:
        return None


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFDIR: "a folder",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "another file",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")
