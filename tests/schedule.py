"""Parts of a long run, as processes beside each other and in their order; what fails is red, and times are told."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
_END_S = 60
"""How long a part may take that is told to end: a pytest with a guest ends that first."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that runs as a process of its own."""

    name: str
    command: Sequence[str]
    after: tuple[str, ...] = ()
    """Parts that must have ended well before it starts."""
    decisive: bool = False
    """Its failure ends the whole run: what follows would take long and tell little."""
    nice: int = 0
    detail: Callable[[], str] = lambda: ""
    """What its time went into, once it has ended."""


@dataclass(slots=True)
class Run:
    """A part that was started."""

    part: Part
    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def well(self) -> bool:
        """It ended, and found nothing."""
        return self.process.returncode == 0

    def said(self) -> str:
        """All its output."""
        return self.log.read_text(errors="replace").rstrip()


class Schedule:
    """Runs parts, each as soon as those that it comes after have ended well."""

    def __init__(self, parts: Iterable[Part], logs: Path, say: Callable[[str], object], *, at_once: int = 99) -> None:
        """`logs`: a folder of its own for what the parts say. `say` is told how each one ended."""
        self._waiting = list(parts)
        self._at_once = at_once
        self._running: list[Run] = []
        self._logs, self._say = logs, say
        self.ended: list[Run] = []

    def run(self) -> bool:
        """Whether all parts ended well. None of them runs any more when this returns or raises."""
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            while self._start():
                for run in self._ended_now():
                    self._judge(run)
                    if run.part.decisive and not run.well:
                        return False
        finally:
            self._end()
        return not self._waiting and all(run.well for run in self.ended)

    def _start(self) -> bool:
        """Start what can be; False where nothing runs."""
        well = {run.part.name for run in self.ended if run.well}
        ready = [each for each in self._waiting if well.issuperset(each.after)]
        for part in ready[: self._at_once - len(self._running)]:
            self._waiting.remove(part)
            log = self._logs / part.name.replace(" ", "-")
            with log.open("wb") as output:
                process = subprocess.Popen(
                    ["nice", "-n", str(part.nice), *part.command],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self._running.append(Run(part, process, log))
        return bool(self._running)

    def _ended_now(self) -> list[Run]:
        """At least one, waited for."""
        while not (ended := [run for run in self._running if run.process.poll() is not None]):
            time.sleep(0.1)
        for run in ended:
            self._running.remove(run)
            run.seconds = time.monotonic() - run.started
        return ended

    def _judge(self, run: Run) -> None:
        self.ended.append(run)
        if run.well:
            last = run.said().rpartition("\n")[2]
            self._say(f"  ok      {run.part.name}, {run.seconds:.0f} s: {last.strip('= ')}")
        else:
            self._say(f"{run.said()}\n  FAILED  {run.part.name}, {run.seconds:.0f} s")

    def _end(self) -> None:
        """End what still runs. Tests then end the guests and agents that they started: see conftest.py."""
        for run in self._running:
            run.process.terminate()
        deadline = time.monotonic() + _END_S
        for run in self._running:
            try:
                run.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
        self._running.clear()


def times(ended: Iterable[Run], seconds: float) -> str:
    """How long each part took, and what for."""
    rows = [(run.part.name, run.seconds, run.part.detail()) for run in ended]
    lines = [f"{spent:7.0f} s  {name}{detail and f': {detail}'}" for name, spent, detail in rows]
    return "\n".join([*lines, f"{seconds:7.0f} s  in all"])
