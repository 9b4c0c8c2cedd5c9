"""What KRIe costs on this machine: `make bench`. Prints figures and asserts none: absolute times are the machine's.

Each agent below runs in a process of its own with the shipped plugin and rules, a ring of 64 MiB and the journal on
disk. Where "one core" is said, all its threads are pinned to CPU 0 and whoever makes the events to the last CPU.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from krie.agent.loading import load_sensors
from krie.agent.resident import Resident, resident
from krie.config import Config
from krie.kernel.run_statistics import enable_run_statistics, program_statistics
from rich.console import Console

from tests.bench import integrity, kernel_tier, opa, policy_review
from tests.bench.columns import as_text
from tests.unit.opa import free_port

_EVENTS = 40_000
_BURST = 100_000
_CALLS = 300_000
_RUNS = 3
_PARTS = 6
"""Parts of the memory that are shown: the largest ones."""
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUS = sorted(os.sched_getaffinity(0))

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


class Agent:
    """One agent as `krie run` starts it, without a terminal."""

    def __init__(self, folder: Path, memo: int, more: str = "") -> None:
        """Start it, and wait until it is armed."""
        self.journal = folder / "journal.jsonl"
        config = folder / "krie.toml"
        config.write_text(
            f'[agent]\nrun_dir = "{folder}/run"\nallow_syscall_tracepoints = true\nring_mib = 64\n'
            f'[journal]\npath = "{self.journal}"\nqueue = 262144\nmax_mib = 4096\n'
            f"[policy]\nmemo = {memo}\n{more}[plugins.runtime_integrity]\n"
        )
        start = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "krie.agent", "--config", str(config), "--quiet"], stderr=subprocess.DEVNULL
        )
        self._read = 0
        self.lines: list[dict[str, Any]] = []
        self.started = self.wait("krie.started", 1)[0]
        self.armed_s = time.monotonic() - start

    def wait(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Wait for so many lines of a kind; a lost one counts too."""
        while True:
            found = [each for each in self.lines if each["kind"] == kind]
            if len(found) + self.lost() >= count:
                return found
            if self._process.poll() is not None:
                raise SystemExit(f"the agent ended with exit code {self._process.returncode}")
            time.sleep(0.005)
            self._look()

    def lost(self) -> int:
        """Records and lines lost, as the journal tells."""
        return sum(each["event"]["count"] for each in self.lines if each["kind"] == "krie.loss")

    def drained_after(self, count: int) -> tuple[float, float]:
        """Let a stopped agent go on: seconds, and seconds of CPU, until it has written so many events."""
        cpu, start, size = self._cpu(), time.monotonic(), self.journal.stat().st_size
        self.go_on()
        lines = 0
        with self.journal.open("rb") as file:
            file.seek(size)
            while lines < count:
                lines += file.read().count(b"\n")
                time.sleep(0.002)
        return time.monotonic() - start, self._cpu() - cpu

    def pin(self) -> None:
        """All threads to the first CPU."""
        for task in os.listdir(f"/proc/{self._process.pid}/task"):
            os.sched_setaffinity(int(task), {_CPUS[0]})

    def halt(self) -> None:
        """Let the ring fill."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End `halt`."""
        self._process.send_signal(signal.SIGCONT)

    def memory(self) -> Resident:
        """What it holds now."""
        return resident(self._process.pid)

    def family(self) -> dict[str, int]:
        """KiB (Pss, without the maps of BPF) of the agent and its children, by name; children of a name together."""
        found: dict[str, int] = {}
        todo = [self._process.pid]
        while todo:
            tgid = todo.pop()
            for task in Path(f"/proc/{tgid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
            name = "agent" if tgid == self._process.pid else Path(f"/proc/{tgid}/comm").read_text().strip()
            found[name] = found.get(name, 0) + resident(tgid).without_ring
        return found

    def stop(self) -> dict[str, Any]:
        """End it; returns its last line."""
        self._process.terminate()
        self._process.wait()
        self._look()
        return self.lines[-1]

    def _look(self) -> None:
        if self.journal.exists():
            with self.journal.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self.lines.append(json.loads(line))

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def agent(memo: int = 8192, more: str = "") -> Iterator[Agent]:
    """An agent for one measurement. `more`: keys of `[policy]`, and other tables."""
    with tempfile.TemporaryDirectory(prefix="krie-bench-", dir="/var/tmp") as folder:
        running = Agent(Path(folder), memo, more)
        try:
            yield running
        finally:
            running.stop()


def child(code: str, count: int) -> float:
    """Run a loop on the last CPU; returns what it printed. It is no child of ours: those are canaries."""
    loop = [sys.executable, "-I", "-c", code, str(count), str(_CPUS[-1])]
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
