"""What the plugin syscall_table costs: a pass over the kernel's code, a look at all places, the timer's share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from krie import Map
from krie.agent.loading import load_sensors
from krie.config import Config
from krie.kernel.memory import open_memories
from krie.kernel.run_statistics import enable_run_statistics, program_statistics
from krie.plugins.syscall_table.code_watch import CodeWatch
from krie.plugins.syscall_table.maps import Look

_PASSES = 20
_WATCHED_S = 20.0
_TIMER = 1
"""Index of the looks that the timer takes."""


def code_pass(row: Callable[..., None]) -> None:
    """The kernel's code, and read-only data where it is known, compared with the reference."""
    with ExitStack() as stack:
        memory, _ = open_memories(stack)
        watch = CodeWatch(memory)
        stack.callback(watch.close)
        _wait(watch)
        first = _cpu_ns(watch.tgid)
        for _ in range(_PASSES):
            watch.ask()
            size = _wait(watch)
        each = (_cpu_ns(watch.tgid) - first) / _PASSES
        row("a pass over the kernel's code", f"{each / 1e6:.1f} ms of CPU", f"{size / 1e6:.1f} MB, {watch.reference}")
        every_s = Config().agent.scan_interval_s
        row("  its share", f"{each / 1e7 / every_s:.4f} %", f"of one CPU, one each {every_s} s")
        row("  its reference, made once", f"{first / 1e9:.1f} s of CPU", "in the background")


def looks(row: Callable[..., None]) -> None:
    """All places that system calls pass, by the timer."""
    config = Config.model_validate({"plugins": {"syscall_table": {"code": False}}}, strict=False)
    with ExitStack() as stack:
        report = lambda fault: print(fault.error, file=sys.stderr)  # noqa: E731
        armed = load_sensors(config, "the bench", report, stack, contain=False)
        armed.plugins.attached(lambda name: armed.maps.starting_with(f"{name}_"), armed.memory, armed.roaming.traps)
        stack.callback(armed.plugins.detaching)
        armed.arm()
        stack.callback(os.close, enable_run_statistics())
        (label,) = (each for each in armed.programs() if each.startswith("syscall_table_at_time"))
        program, table = armed.programs()[label], armed.maps["syscall_table_look"]
        before, taken, start = program_statistics(program), _taken(table), time.monotonic()
        time.sleep(_WATCHED_S)
        took_s, now = time.monotonic() - start, program_statistics(program)
        count, ns = _taken(table) - taken, now.run_ns - before.run_ns
        row("a look at all places", f"{ns / count / 1e3:.0f} us", f"{count} looks in {took_s:.0f} s")
        row("  the timer's share", f"{100 * ns / 1e9 / took_s:.4f} %", "of one CPU")


def _taken(table: Map) -> int:
    return sum(each.looks for each in Look.each(list(table.array())[_TIMER]))


def _wait(watch: CodeWatch) -> int:
    """Until the look is over; returns the bytes that it compared."""
    while not watch.idle:
        list(watch.poll())
        time.sleep(0.001)
    return watch.compared()


def _cpu_ns(tgid: int) -> int:
    return int(Path(f"/proc/{tgid}/schedstat").read_text().split()[0])
