"""Why code may differ legally: the kernel's own lists of kprobes and of functions that ftrace handles."""

from __future__ import annotations

import time
from collections.abc import Callable

from krie import KernelFile, kernel_lines, kprobe_lines

KPROBES = "__builtin__kprobes"
"""What the kernel calls the owner of code that it makes for kprobes."""
_LIST = KernelFile("/sys/kernel/debug/kprobes/list")
_HANDLED = KernelFile("/sys/kernel/tracing/enabled_functions")
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
    lines = _lines(_LIST, kprobe_lines)
    return [int(line.split()[0], 16) for line in lines if "[GONE]" not in line]


def _handled() -> set[str]:
    lines = _lines(_HANDLED, kernel_lines)
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("\t")}


def _lines(file: KernelFile, read: Callable[[KernelFile], list[str]]) -> list[str]:
    try:
        return read(file)
    except OSError:  # not built in, or locked down: then nothing is explained
        return []
