"""What KRIe costs on this machine: `make bench`. Prints figures and asserts none: absolute times are the machine's.

Each agent below runs in a process of its own with the shipped plugin and rules, a ring of 64 MiB and the journal on
disk. Where "one core" is said, all its threads are pinned to CPU 0 and whoever makes the events to the last CPU.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from krie.agent.loading import load_sensors
from krie.config import Config
from krie.kernel.run_statistics import enable_run_statistics, program_statistics
from rich.console import Console

from tests.bench import flood, integrity, kernel_tier, opa, policy_review
from tests.bench.agent import CPUS, agent
from tests.bench.columns import as_text
from tests.unit.opa_servers import free_port

_EVENTS = 40_000
_BURST = 100_000
_CALLS = 300_000
_RUNS = 3
_PARTS = 6
"""Parts of the memory that are shown: the largest ones."""

# Bpf() calls with a command that no kernel has: each is an event. Says how long they took, ns.
_FLOOD = """
import ctypes, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[2])})
libc, attr = ctypes.CDLL(None), ctypes.create_string_buffer(8)
call, pointer = libc.syscall, ctypes.byref(attr)
start = time.monotonic_ns()
for _ in range(int(sys.argv[1])):
    call(321, 9999, pointer, 8)
print(time.monotonic_ns() - start)
"""
# A system call that no probe is about. Says how long one took, ns.
_BYSTANDER = """
import ctypes, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[2])})
call = ctypes.CDLL(None).syscall
start = time.monotonic_ns()
for _ in range(int(sys.argv[1])):
    call(39)
print((time.monotonic_ns() - start) / int(sys.argv[1]))
"""


def child(code: str, count: int) -> float:
    """Run a loop on the last CPU; returns what it printed. It is not a child of ours: those are canaries."""
    loop = [sys.executable, "-I", "-c", code, str(count), str(CPUS[-1])]
    command = ["/bin/sh", "-c", '"$@" & wait $!', "sh", *loop]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def start_and_memory(row: Callable[..., None]) -> None:
    """From exec to armed, and what it holds then."""
    seconds = []
    for _ in range(_RUNS):
        with agent() as running:
            seconds.append(running.armed_s)
            event = running.started["event"]
            memory = running.memory()
    row(
        "armed, imports included", f"{statistics.median(seconds):.2f} s", f"{event['alive']} of {event['probes']} alive"
    )
    ring = memory.total - memory.without_ring
    row("agent's Pss without the ring", _mib(memory.without_ring), f"and {_mib(ring)} of the ring")
    row("agent's RssAnon", _mib(memory.rss_anonymous), "")
    for part, size in list(memory.pss.items())[:_PARTS]:
        row(f"  Pss of {part}", _mib(size), "")


def memory_with_opa(row: Callable[..., None]) -> None:
    """What an agent and its processes hold where an OPA server decides, and where none does."""
    url = f"http://127.0.0.1:{free_port()}"
    for name, more in (("embedded", ""), ("opa", f'engine = "opa"\n[opa]\nurl = "{url}"\n')):
        with agent(more=more) as running:
            time.sleep(3.0)  # the worker has imported what it needs, and found nobody
            family = running.family()
        parts = ", ".join(f"{each} {_mib(size)}" for each, size in sorted(family.items()))
        row(f'Pss with engine = "{name}"', _mib(sum(family.values())), parts)


def _mib(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"


def throughput(row: Callable[..., None]) -> None:
    """From a full ring to the journal, on one core."""
    rates = {}
    for name, memo in (("without the memo", 0), ("with the memo", 8192)):
        with agent(memo) as running:
            running.pin()
            child(_FLOOD, 2000)
            running.wait("runtime_integrity.bpf", 2000)
            best = []
            for _ in range(_RUNS):
                running.halt()
                child(_FLOOD, _EVENTS)
                best.append(running.drained_after(_EVENTS))
            wall, cpu = min(best)
            stopped = running.stop()
            rates[name] = _EVENTS / wall
            row(
                f"ring to journal, {name}",
                f"{_EVENTS / wall:,.0f} events/s",
                f"{1e6 * cpu / _EVENTS:.0f} us of CPU each; {stopped['event']['lost']} lost; "
                f"memo answered {stopped['event']['remembered']} of {stopped['event']['events']}",
            )
    row("the memo's gain", f"{rates['with the memo'] / rates['without the memo']:.1f} x", "for repeating events")


def burst(row: Callable[..., None]) -> None:
    """100,000 events as fast as one CPU makes them."""
    with agent() as running:
        took_s = child(_FLOOD, _BURST) / 1e9
        seen = len(running.wait("runtime_integrity.bpf", _BURST))
        lost = running.lost()
    exact = "exact" if seen + lost == _BURST else "WRONG"
    row(f"burst of {_BURST:,} in {took_s:.2f} s", f"{seen:,} seen", f"{lost:,} reported lost; the sum is {exact}")


def bystander(row: Callable[..., None]) -> None:
    """What a system call costs that no probe is about."""
    without = min(child(_BYSTANDER, _CALLS) for _ in range(_RUNS))
    with agent():
        watched = min(child(_BYSTANDER, _CALLS) for _ in range(_RUNS))
    row("getpid() by ctypes, watched", f"{watched / without:.2f} x", f"{watched:.0f} ns, {without:.0f} ns unwatched")


def programs(row: Callable[..., None]) -> None:
    """Time of one run of each program, by the kernel's own statistics."""
    config = Config.model_validate(
        {"agent": {"allow_syscall_tracepoints": True}, "plugins": {"runtime_integrity": {}}}, strict=False
    )
    with ExitStack() as stack:
        armed = load_sensors(
            config, "the bench", lambda fault: print(fault.error, file=sys.stderr), stack, contain=False
        )
        armed.arm()
        stack.callback(os.close, enable_run_statistics())
        runs = {
            name.removeprefix("program:"): descriptors[0]
            for name, descriptors in armed.loaded.descriptors.items()
            if name.startswith("program:") and name != "program:krie_inspect"
        }
        before = {name: program_statistics(each) for name, each in runs.items()}
        for phase, work in (("nothing to send", _quiet_work), ("each sends", _loud_work)):
            work()
            for name, each in sorted(runs.items()):
                now, then = program_statistics(each), before[name]
                before[name] = now
                if count := now.runs - then.runs:
                    row(name, f"{(now.run_ns - then.run_ns) / count:.0f} ns a run", f"{phase}; {count} runs")


def _quiet_work() -> None:
    child(_BYSTANDER, 100_000)
    for _ in range(20_000):
        Path("/proc/sys/kernel/ostype").read_bytes()


def _loud_work() -> None:
    child(_FLOOD, 20_000)
    for _ in range(200):
        subprocess.run(["/bin/sh", "-c", "/bin/true; :"], check=True)


def main() -> None:
    """Run all, or those whose names are given."""
    measurements = (
        start_and_memory,
        throughput,
        burst,
        bystander,
        flood.decision_under_flood,
        programs,
        kernel_tier.refusing_probe,
        kernel_tier.user_tier,
        kernel_tier.table_build,
        integrity.code_pass,
        integrity.looks,
        memory_with_opa,
        opa.decisions,
        opa.bundle_of_200_rules,
        policy_review.replay,
        policy_review.eval_lines,
    )
    console, rows = Console(stderr=True), list[tuple[str, ...]]()
    for each in measurements:
        if len(sys.argv) == 1 or each.__name__ in sys.argv[1:]:
            with console.status(f"{each.__name__}: {(each.__doc__ or '').splitlines()[0]}"):
                each(lambda *row: rows.append(row))
    print(as_text(rows))


if __name__ == "__main__":
    main()
