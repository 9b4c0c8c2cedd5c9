"""How long a decision of user space takes while others flood: from the call to the death of who made it."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kernel.site import CODE, NOBODY, OTHER, Site, attacked

_TRIGGERS = 40
_FLOODS = {
    "the same": "while True: ask(1)",
    "ptrace of tgid 1": "while call(101, 16, 1, 0, 0) == -1: pass",  # PTRACE_ATTACH, which the kernel refuses
}
"""What processes of another user do, as fast as they can."""
_FLOODING = 2
_PAST_THE_BURST_S = 3.0
_PAUSE_S = 0.25
"""Between two triggers: within the budget of their user."""
# Says when it asks, ns; then it is killed.
_TRIGGER = f"""{CODE}
os.setresuid({OTHER}, {OTHER}, {OTHER})
sys.stdout.write(str(time.monotonic_ns()) + "\\n")
sys.stdout.flush()
ask(7001)
time.sleep(60)
"""


def decision_under_flood(row: Callable[..., None]) -> None:
    """A rule of user space that kills, alone and while two processes of another user flood."""
    with tempfile.TemporaryDirectory(prefix="krie-") as folder, attacked(Path(folder), "runtime_integrity") as site:
        _took_ms()  # the first one finds nothing in any cache
        quiet = sorted(_took_ms() for _ in range(_TRIGGERS))
        _tell(row, "alone", quiet)
        for name, code in _FLOODS.items():
            with _flooded(site, code):
                time.sleep(_PAST_THE_BURST_S)
                before = site.held()
                flooded = sorted(_took_ms() for _ in range(_TRIGGERS))
                held = sum(site.held()) - sum(before)
            _tell(row, f"beside {_FLOODING} floods of {name}", flooded)
            ratio = statistics.median(flooded) / statistics.median(quiet)
            row("the floods' part of it", f"{ratio:.1f} x", f"{held:,} records were held back meanwhile")


def _tell(row: Callable[..., None], name: str, times: list[float]) -> None:
    share = f"{statistics.median(times):.1f} ms, at most {times[-1]:.1f} ms"
    row(f"from a call to its caller's death, {name}", share, f"{_TRIGGERS} times, by a rule of user space")


@contextmanager
def _flooded(site: Site, code: str) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(_FLOODING):
            flood = stack.enter_context(site.process(NOBODY, code))
            assert flood.stdin is not None
            flood.stdin.write("\n")
            flood.stdin.flush()
        yield


def _took_ms() -> float:
    time.sleep(_PAUSE_S)
    with subprocess.Popen([sys.executable, "-IS", "-c", _TRIGGER], stdout=subprocess.PIPE, text=True) as asker:
        status = asker.wait()
        end = time.monotonic_ns()
        assert asker.stdout is not None
        began = int(asker.stdout.readline())
    if status != -signal.SIGKILL:
        raise RuntimeError(f"the process that asked ended with {status}, and was not killed")
    return (end - began) / 1e6
