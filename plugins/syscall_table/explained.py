"""Why code may differ legally: the kernel's own lists of kprobes and of functions that ftrace handles."""

from __future__ import annotations

import time
from pathlib import Path

from krie import kernel_lines, kprobe_lines, mounted

KPROBES = "__builtin__kprobes"
"""What the kernel calls the owner of code that it makes for kprobes."""
_LIST = "kprobes/list"
_REPLACED = 16
"""Most bytes that an optimized kprobe's jump may stand for: instructions of up to 15 bytes begin among its 5."""


class Causes:
    """The lists as they were at some time: both grow long under tracers, which also change much at once."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._read_at = -1
        self._kprobes: list[int] = []
        self._handled: set[str] = set()

    def of(self, address: int, function: str, since: int) -> str:
        """`kprobe` where one is listed whose instruction covers the address, `ftrace` where the function is listed as
        handled; empty where neither is, or the lists cannot be read.

        `since`: when the change was seen, ns since boot; what was read before that is read again.
        """
        if self._read_at <= since:
            self._read_at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._kprobes, self._handled = _kprobes(), _handled()
        if any(start <= address < start + _REPLACED for start in self._kprobes):
            return "kprobe"
        return "ftrace" if function in self._handled else ""


def _kprobes() -> list[int]:
    lines = _lines(("debugfs", _LIST, Path("/sys/kernel/debug")))
    return [int(line.split()[0], 16) for line in lines if "[GONE]" not in line]


def _handled() -> set[str]:
    lines = _lines(("tracefs", "enabled_functions", Path("/sys/kernel/tracing")))
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("\t")}


def _lines(where: tuple[str, str, Path]) -> list[str]:
    kind, name, usual = where
    read = kprobe_lines if name == _LIST else kernel_lines
    folder = next((each.point for each in mounted(kind) if each.root == "/"), usual)
    try:
        return read(folder / name)
    except OSError:  # not mounted, not built in, or locked down: then nothing is explained
        return []
