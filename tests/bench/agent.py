"""An agent in a process of its own, for one measurement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from krie.agent.resident import Resident, resident

_TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))


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
            os.sched_setaffinity(int(task), {CPUS[0]})

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
