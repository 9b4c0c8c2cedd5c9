"""Reads journals again: files in the order in which they were written, rotated and compressed ones too, in pieces.

Whatever is in a file, no more of it is held than one piece: a line that is too long is left out and told.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader, UnsupportedOperation
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from ..errors import ConfigError

MOST_LINE = 1 << 20
"""Bytes of the longest line that is read."""
_PIECE = 1 << 19
_COMPRESSED = {".gz", ".xz", ".bz2", ".zst"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
_ROTATED = re.compile(r"(?P<name>.+?)(?:\.(?P<number>\d{1,6})|[.-](?P<date>\d{8,14}))?")
STANDARD_INPUT = Path("-")


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many; none at its end."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of one file."""

    file: int
    """Its place among the files."""
    line: int
    """Number of the first line, from 1."""
    text: bytes
    skipped: str = ""
    """Why this is not text but one line that was left out."""


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Files as they were written: of a journal's, the one with the highest number first, the one without any last."""
    names: dict[str, int] = {}
    keyed = []
    for path in paths:
        shown = path.with_suffix("") if path.suffix in _COMPRESSED else path
        match = _ROTATED.fullmatch(shown.name)
        name = str(shown.parent / match["name"]) if match is not None else str(shown)
        place = names.setdefault(name, len(names))
        if match is not None and match["number"]:
            keyed.append(((place, 0, -int(match["number"])), path))
        elif match is not None and match["date"]:
            keyed.append(((place, 0, int(match["date"])), path))
        else:
            keyed.append(((place, 1, 0), path))
    return [path for _, path in sorted(keyed, key=lambda each: each[0])]


def rotated(path: Path) -> list[Path]:
    """A journal's file with those that were rotated away, in no order."""
    start = f"{path.name}"
    try:
        beside = [each for each in path.parent.iterdir() if each.name.startswith((f"{start}.", f"{start}-"))]
    except OSError as error:
        raise ConfigError(str(path.parent), f"cannot be read: {error.strerror}") from error

    def is_rotated(each: Path) -> bool:
        match = _ROTATED.fullmatch((each.with_suffix("") if each.suffix in _COMPRESSED else each).name)
        return match is not None and match["name"] == start

    return [path, *(each for each in beside if is_rotated(each))]


class JournalReader:
    """Files of journals as pieces. Raises `ConfigError` for what cannot be read at all."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open all of them, in this order; `-` is standard input."""
        self.paths = list(paths)
        self._files: list[IO[bytes]] = []
        self.total = 0
        """Bytes on disk of all files; standard input has none."""
        try:
            self._open_all()
        except ConfigError:
            self.close()
            raise
        self._before = 0
        self._at: IO[bytes] | None = None

    def _open_all(self) -> None:
        seen: dict[tuple[int, int], Path] = {}
        for path in self.paths:
            if path == STANDARD_INPUT:
                self._files.append(os.fdopen(os.dup(standard_input().fileno()), "rb"))
                continue
            opened, status = _opened(path)
            self._files.append(opened)
            other = seen.setdefault((status.st_dev, status.st_ino), path)
            if other is not path:
                raise ConfigError(str(path), f"is {other}, which is read already")
            self.total += status.st_size

    @property
    def done(self) -> int:
        """Bytes on disk that were read."""
        if self._at is None:
            return self._before
        with suppress(OSError, ValueError):  # standard input may have no place
            return self._before + self._at.tell()
        return self._before

    def pieces(self) -> Iterator[Piece]:
        """All lines of all files; what ends early or is damaged ends there, and is told."""
        for number, (path, raw) in enumerate(zip(self.paths, self._files, strict=True)):
            self._at = raw
            yield from pieces_of(_plain(path, raw), number)
            self._before, self._at = self.done, None

    def close(self) -> None:
        """Close all files."""
        for each in self._files:
            each.close()


def standard_input() -> BinaryIO:
    """What was given to this program. Raises `ConfigError` where nothing was, or what cannot be read."""
    # Python has none where it is closed.
    if (given := sys.stdin) is None:
        raise ConfigError("<stdin>", "is closed; give it lines of the journal")
    with suppress(UnsupportedOperation):  # no file
        if fcntl.fcntl(given.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            raise ConfigError("<stdin>", "is only for writing; give it lines of the journal")
    return given.buffer


def _opened(path: Path) -> tuple[IO[bytes], os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"cannot be read: {getattr(error, 'strerror', error)}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        hint = "; for a pipe say - and give it as standard input" if stat.S_ISFIFO(status.st_mode) else ""
        raise ConfigError(str(path), f"is not a regular file{hint}")
    return os.fdopen(descriptor, "rb", buffering=0), status


def _plain(path: Path, raw: IO[bytes]) -> Readable:
    # Of a pipe the start can only be looked at in a buffer.
    start = raw.peek(6) if isinstance(raw, BufferedReader) else os.pread(raw.fileno(), 6, 0)
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
    if kind == "zstd":
        raise ConfigError(str(path), f"is compressed by zstd; zstd -dc {path.name} | krie policy replay -")
    if kind == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if kind == "xz":
        return lzma.LZMAFile(raw)
    return bz2.BZ2File(raw) if kind == "bzip2" else raw


def pieces_of(stream: Readable, file: int = 0, start: bytes = b"") -> Iterator[Piece]:
    """All lines of a stream of which `start` was read already."""
    end = start.rfind(b"\n") + 1
    if end:
        yield Piece(file, 1, start[:end])
    rest, line, too_long = start[end:], 1 + start.count(b"\n"), False
    while True:
        try:
            read = stream.read(_PIECE)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            if rest and not too_long:
                yield Piece(file, line, rest)
                line += 1
            yield Piece(file, line, b"", f"the file is damaged from here on: {error}")
            return
        if not read:
            break
        end = read.rfind(b"\n") + 1
        if too_long:
            if not end:
                continue
            tail = read.index(b"\n") + 1
            yield Piece(file, line, b"", f"longer than {MOST_LINE >> 20} MiB")
            line, too_long = line + 1, False
            read, end = read[tail:], end - tail
        if end:
            text = rest + read[:end]
            yield Piece(file, line, text)
            line += text.count(b"\n")
            rest = read[end:]
        else:
            rest += read
        if len(rest) > MOST_LINE:
            rest, too_long = b"", True
    if too_long:
        yield Piece(file, line, b"", f"longer than {MOST_LINE >> 20} MiB")
    elif rest:
        yield Piece(file, line, rest)
