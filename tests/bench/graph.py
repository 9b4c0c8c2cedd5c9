"""Calls of kernel functions and how long each took, as the function_graph tracer tells: no BPF, and no probes.

Only the named functions are traced, in all tasks; whose they are is sorted out afterwards by the forks that are traced
beside them. A filter by task in the kernel would forget a task before it closes its files, which is what we count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TRACEFS = Path("/sys/kernel/tracing")
_BUFFER_KIB = 8192
_OPTIONS = (
    *("funcgraph-abstime", "funcgraph-proc", "funcgraph-tail", "sleep-time"),
    *("nofuncgraph-overhead", "nofuncgraph-cpu", "nofuncgraph-irqs"),
)
_EVENTS = ("sched_process_fork", "sched_process_exec")
_LINE = re.compile(r"^\s*(?P<time>\d+\.\d+)\s*\|\s*.*?-(?P<task>\d+)\s*\|(?P<rest>.*)$")
_RETURN = re.compile(r"(?P<us>\d+(?:\.\d+)?) us\s*\|\s*(?:(?P<leaf>\w+)\(\);|\}\s*/\*\s*(?P<nested>\w+))")
_EXEC = re.compile(r"sched_process_exec: ")
_FORK = re.compile(r"sched_process_fork:.* pid=(?P<parent>\d+) .*child_pid=(?P<child>\d+)")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that came back. Times are of time.monotonic()."""

    function: str
    task: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What was traced."""

    calls: tuple[Call, ...]
    children: dict[int, int] = field(default_factory=dict)
    """Parent by child, of tasks that were made meanwhile."""
    execs: tuple[tuple[float, int], ...] = ()
    """When which task executed another program."""
    absent: tuple[str, ...] = ()
    """Functions that this kernel does not have, or cannot trace."""

    def of_family(self, root: int) -> tuple[Call, ...]:
        """Those of a task and of all that descend from it."""
        return tuple(each for each in self.calls if self._descends(each.task, root))

    def _descends(self, task: int, root: int) -> bool:
        while task != root:
            if task not in self.children:
                return False
            task = self.children[task]
        return True


class Recording:
    """Tracing goes on. `stop` ends it."""

    def __init__(self, absent: Iterable[str]) -> None:
        """Made by `recording`."""
        self._absent = tuple(absent)

    def stop(self) -> Trace:
        """End it; what was seen. Raises `OSError`, and `SystemExit` where the buffer was too small."""
        _write("tracing_on", "0")
        overruns = [
            line
            for each in _TRACEFS.glob("per_cpu/*/stats")
            for line in each.read_text().splitlines()
            if "overrun" in line
        ]
        if any(int(line.rpartition(":")[2]) for line in overruns):
            raise SystemExit(f"the trace has lost calls: {overruns}")
        with (_TRACEFS / "trace").open(errors="replace") as lines:
            return parse(lines, self._absent)


def parse(lines: Iterable[str], absent: tuple[str, ...] = ()) -> Trace:
    """Read what the kernel prints."""
    calls: list[Call] = []
    children: dict[int, int] = {}
    execs: list[tuple[float, int]] = []
    for line in lines:
        if (found := _LINE.match(line)) is None:
            continue
        if (fork := _FORK.search(found["rest"])) is not None:
            children[int(fork["child"])] = int(fork["parent"])
        elif _EXEC.search(found["rest"]) is not None:
            execs.append((float(found["time"]), int(found["task"])))
        elif (back := _RETURN.search(found["rest"])) is not None:
            time, took = float(found["time"]), float(back["us"]) / 1e6
            # The line of a call that nothing came between is that of its start.
            start = time if back["leaf"] else time - took
            calls.append(Call(back["leaf"] or back["nested"], int(found["task"]), start, start + took))
    return Trace(tuple(calls), children, tuple(execs), absent)


@contextmanager
def recording(functions: Iterable[str]) -> Iterator[Recording]:
    """Trace these functions while the context lasts. Needs root and tracefs; leaves the tracer as it is by default."""
    functions = tuple(functions)
    can = {line.split()[0] for line in (_TRACEFS / "available_filter_functions").read_text().splitlines()}
    _write("tracing_on", "0")
    _write("current_tracer", "nop")
    _write("trace_clock", "mono")
    _write("buffer_size_kb", str(_BUFFER_KIB))
    _write("set_ftrace_filter", " ".join(each for each in functions if each in can))
    _write("current_tracer", "function_graph")
    for option in _OPTIONS:
        _write("trace_options", option)
    for event in _EVENTS:
        _write(f"events/sched/{event}/enable", "1")
    _write("trace", "")
    _write("tracing_on", "1")
    try:
        yield Recording(each for each in functions if each not in can)
    finally:
        for event in _EVENTS:
            _write(f"events/sched/{event}/enable", "0")
        _write("current_tracer", "nop")
        _write("set_ftrace_filter", "")
        _write("tracing_on", "1")


def busy_s(calls: Iterable[Call]) -> float:
    """Seconds in which at least one of the calls lasted, by task: a call within another one counts once."""
    by_task: dict[int, list[Call]] = {}
    for each in calls:
        by_task.setdefault(each.task, []).append(each)
    return sum(map(elapsed_s, by_task.values()))


def elapsed_s(calls: Iterable[Call]) -> float:
    """Seconds on the clock in which at least one of the calls lasted, whoever made it."""
    total, until = 0.0, float("-inf")
    for each in sorted(calls, key=lambda call: call.start):
        total += max(0.0, each.end - max(each.start, until))
        until = max(until, each.end)
    return total


def _write(name: str, text: str) -> None:
    (_TRACEFS / name).write_text(text)
