"""Programs that tests run, in a cgroup of their own, so that what they do can be told from what the machine does."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..kernel.mounts import mounted

_NUMBERS = itertools.count()


class Victims:
    """Runs programs in one cgroup. Needs root."""

    def __init__(self, cgroup: Path, root: Path) -> None:
        """`cgroup`: its folder below `root`, the root of the cgroup v2 tree."""
        self._cgroup = cgroup
        self.path = f"/{cgroup.relative_to(root)}"
        """As the journal names it."""

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python code, with the standard library alone; `libc` is defined."""
        prelude = "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
        return self.execute([sys.executable, "-IS", "-c", prelude + code, *arguments])

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program. A shell enters the cgroup first and then becomes the program."""
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        return subprocess.run(["/bin/sh", "-c", enter, "sh", *command], check=True, capture_output=True, text=True)

    def mine(self, line: Mapping[str, Any]) -> bool:
        """Whether a journal line is about something that happened in the cgroup."""
        return bool(line["process"]["cgroup"]["path"] == self.path)


@contextmanager
def new_victims() -> Iterator[Victims]:
    """A cgroup for the time of one test, which ends whatever is still in it then."""
    root = next(each.point for each in mounted("cgroup2") if each.root == "/")
    cgroup = root / f"krie-test-{os.getpid()}-{next(_NUMBERS)}"
    cgroup.mkdir()
    try:
        yield Victims(cgroup, root)
    finally:
        _end_all(cgroup / "cgroup.procs")
        cgroup.rmdir()


def _end_all(members: Path, timeout_s: float = 30) -> None:
    """Kill what programs left behind. Where something stays, removing the cgroup fails."""
    deadline = time.monotonic() + timeout_s
    while (left := {int(each) for each in members.read_text().split()}) and time.monotonic() < deadline:
        for tgid in left - {0}:  # 0: one of another PID namespace, and for kill(2) our own process group
            with suppress(ProcessLookupError):
                os.kill(tgid, signal.SIGKILL)
        time.sleep(0.05)
