"""Everything that KRIe says to people leaves here, on standard output or standard error.

What is said may hold names, paths and texts that others chose. A line stays one line, and none of it reaches a
terminal as anything but visible characters, whatever the terminal's encoding; see `krie.printable`. Tables and colours
are made in `krie.cli.render`, of text that went through the same. A test finds whoever prints past both.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .errors import ExitCode, KernelError, KrieError
from .exhaustion import EXHAUSTED, exhausted
from .printable import json_line, lines_of, no_commands, one_line

_STDOUT, _STDERR = 1, 2
DETAIL = "  | "
"""Before each line that is not KRIe's own: of a compiler, of the verifier, of a traceback."""
_decode_guest = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode


def say(*lines: object) -> None:
    """Print each of them on standard output as one line, which is not a command to a CI system either."""
    for line in lines:
        sys.stdout.write(f"{no_commands(one_line(line))}\n")


def say_text(text: str) -> None:
    """Print a text of several lines on standard output."""
    say(*lines_of(text))


def say_for_ci(text: str) -> None:
    """The same of a text whose commands to a CI system are KRIe's own."""
    for line in lines_of(text):
        sys.stdout.write(f"{line}\n")


def say_json(value: object) -> None:
    """Print a value on standard output, for machines."""
    sys.stdout.write(f"{json_line(json.dumps(value, indent=2))}\n")


def complain(text: object, details: str = "", *, by: str = "krie") -> None:
    """Print one line on standard error, and below it details, if there are any, whose line breaks are meant."""
    sys.stderr.write(_told(f"{by}: {one_line(text)}", details))
    sys.stderr.flush()


def complain_text(text: str) -> None:
    """Print a text of KRIe's own, of several lines, on standard error."""
    sys.stderr.write(no_commands("".join(f"{each}\n" for each in lines_of(text))))


def complain_of(error: Exception) -> ExitCode:
    """Tell what ended a command; returns its exit code. What nobody raised on purpose is told with its traceback."""
    number = exhausted(error)
    if isinstance(error, KrieError):
        used_up = number and not (isinstance(error, KernelError) and error.exhausted)
        complain(f"{error.headline}; {EXHAUSTED[number]}" if used_up else error.headline, error.details)
        return ExitCode.EXHAUSTED if used_up else error.exit_code
    if number:
        where = error.filename if isinstance(error, OSError) and error.filename else "this command"
        return complain_of(KernelError(str(where), number))
    complain("this is a bug in KRIe", "".join(traceback.format_exception(error)))
    return ExitCode.INTERNAL


def pass_through(data: bytes) -> None:
    """Give on what a guest's command wrote: to a terminal as people may see it, elsewhere byte by byte."""
    if sys.stdout.isatty():
        sys.stdout.write("\n".join(lines_of(_decode_guest(data))))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()


def log_to_stderr(level: int) -> None:
    """Have what is logged printed on standard error, at this level and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=level, handlers=[handler])


class _OneLine(logging.Formatter):
    """A record as one line; below it the traceback and what the caller gave as `extra={"details": text}`."""

    def format(self, record: logging.LogRecord) -> str:
        details = [getattr(record, "details", ""), self.formatException(record.exc_info) if record.exc_info else ""]
        return _told(f"krie: {one_line(record.getMessage())}", "\n".join(filter(None, details))).removesuffix("\n")


def _told(line: str, details: str) -> str:
    told = (line, *(DETAIL + each for each in lines_of(details.rstrip()) if details))
    return no_commands("".join(f"{each}\n" for each in told))


class _Visible(io.TextIOWrapper):
    """A standard stream: whatever is written to it, by libraries too, lines consist of visible characters."""

    def write(self, text: str) -> int:
        super().write("\n".join(map(one_line, text.split("\n"))))
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        """For whoever makes control characters of its own, of text that has none."""
        return super().write(text)


class Unfiltered(io.TextIOBase):
    """A standard stream for `krie.cli.render`, which writes colours and moves the cursor."""

    def __init__(self, stream: _Visible) -> None:
        """`stream` stays whose it is."""
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override] # noqa: D102
        return self._stream.encoding

    def isatty(self) -> bool:  # noqa: D102
        return self._stream.isatty()

    def fileno(self) -> int:  # noqa: D102
        return self._stream.fileno()

    def write(self, text: str) -> int:  # noqa: D102
        return self._stream.write_as_it_is(text)

    def flush(self) -> None:  # noqa: D102
        self._stream.flush()


def unfiltered(*, stderr: bool) -> TextIO | Unfiltered:
    """The stream for `krie.cli.render`."""
    stream = sys.stderr if stderr else sys.stdout
    return Unfiltered(stream) if isinstance(stream, _Visible) else stream


@contextmanager
def visible_streams() -> Iterator[None]:
    """Meanwhile nothing that is written to standard output or error, by whomever, is more than visible characters.

    What the terminal's encoding lacks is written as an escape. Standard streams that are closed are `/dev/null` from
    then on, so that no file which is opened later takes their place.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    streams = _visible(sys.stdout, _STDOUT), _visible(sys.stderr, _STDERR)
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for each in streams:
            each.detach()  # which flushes; closing it would close the descriptor


def _visible(stream: TextIO | None, number: int) -> _Visible:
    if stream is None:  # it was closed when Python started
        return _Visible(open(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    stream.flush()
    return _Visible(
        stream.buffer, stream.encoding, "backslashreplace", line_buffering=stream.isatty() or number == _STDERR
    )
