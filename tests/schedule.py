"""`make test`: everything, as a schedule for two processors. `python -m tests.schedule [--fast]`

A guest keeps one processor busy, and both guests take longer than all the rest. So they start first, at a lower
priority; meanwhile come, in this order, the source's checks with the tests that need no kernel, the kernel tests of
this machine, and the others. A check or a test without a kernel that fails ends the whole run at once.

What each part says lies in .cache/test while it runs; it is printed when the part fails.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .lab import suite

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


def fast_parts() -> tuple[Part, ...]:
    """Those that attach to no kernel: `make test-fast`."""
    return (
        Part("checks", ("tools/check",), decisive=True),
        Part("unit and policy tests", _pytest("tests/unit", "tests/policy"), decisive=True),
    )


def all_parts() -> tuple[Part, ...]:
    """`make test`. Whatever the other parts do not name is in the last one."""
    guests, kernel = "tests/lab/test_stock_kernels.py", "tests/kernel"
    fast = fast_parts()
    elsewhere = ("tests/unit", "tests/policy", kernel, guests)
    return (
        *(
            Part(f"guest {each.label}", _pytest(f"{guests}::test_the_suite[{each.label}]"), nice=5, detail=each.times)
            for each in suite.SUITES
            if each.always
        ),
        *fast,
        Part("kernel tests here", _pytest(kernel), after=tuple(each.name for each in fast)),
        Part(
            "other tests", _pytest("tests", *(f"--ignore={each}" for each in elsewhere)), after=("kernel tests here",)
        ),
    )


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-q", "--durations=10", "-p", "no:cacheprovider", *arguments)


class Schedule:
    """Runs parts, each as soon as those that it comes after have ended well."""

    def __init__(self, parts: Iterable[Part], logs: Path, say: Callable[[str], object]) -> None:
        """`logs`: a folder of its own for what the parts say. `say` is told how each one ended."""
        self._waiting = list(parts)
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
        for part in [each for each in self._waiting if well.issuperset(each.after)]:
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


def main(arguments: list[str]) -> int:
    """Run the schedule; 1 where anything failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # then the parts end, too
    start = time.monotonic()
    parts = fast_parts() if arguments == ["--fast"] else all_parts()
    schedule = Schedule(parts, ROOT / ".cache/test", lambda text: print(text, flush=True))
    well = schedule.run()
    print(times(schedule.ended, time.monotonic() - start))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
