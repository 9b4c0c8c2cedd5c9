"""Why code may differ legally: the kernel's own lists of kprobes and of functions that ftrace handles."""

from __future__ import annotations

from pathlib import Path

from krie import mounted

_REPLACED = 16
"""Most bytes that an optimized kprobe's jump may stand for: instructions of up to 15 bytes begin among its 5."""


def cause(address: int, function: str) -> str:
    """`kprobe` where one is listed whose instruction covers the address, `ftrace` where the function is listed as
    handled; empty where neither is, or the lists cannot be read."""
    if any(start <= address < start + _REPLACED for start in _kprobes()):
        return "kprobe"
    return "ftrace" if function in _handled() else ""


def _kprobes() -> list[int]:
    lines = _lines(("debugfs", "kprobes/list", Path("/sys/kernel/debug")))
    return [int(line.split()[0], 16) for line in lines if "[GONE]" not in line]


def _handled() -> set[str]:
    lines = _lines(("tracefs", "enabled_functions", Path("/sys/kernel/tracing")))
    return {line.split()[0] for line in lines if line.strip() and not line.startswith("\t")}


def _lines(where: tuple[str, str, Path]) -> list[str]:
    kind, name, usual = where
    folder = next((each.point for each in mounted(kind) if each.root == "/"), usual)
    try:
        return (folder / name).read_text().splitlines()
    except OSError:  # not mounted, not built in, or locked down: then nothing is explained
        return []
