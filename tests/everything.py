"""`make test`: everything, in an order for two processors. `python -m tests.everything [--fast]`

A guest keeps one processor busy, and both guests take longer than all the rest. So they start first, at a lower
priority; meanwhile come, in this order, the source's checks with the tests that need no kernel, the kernel tests of
this machine, and the others. A check or a test without a kernel that fails ends the whole run at once.

What each part says lies in .cache/test while it runs; it is printed when the part fails.
"""

import signal
import sys
import time

from .lab.suites import SUITES
from .schedule import ROOT, Part, Schedule, times

LOGS = ROOT / ".cache/test"


def fast_parts() -> tuple[Part, ...]:
    """Those that attach to no kernel: `make test-fast`."""
    return (
        Part("checks", ("tools/check",), decisive=True),
        Part("unit and policy tests", _pytest("-m", "not slow", "tests/unit", "tests/policy"), decisive=True),
    )


def all_parts() -> tuple[Part, ...]:
    """Whatever the other parts do not name is in the last one, but what is slow."""
    guests, kernel = "tests/lab/test_stock_kernels.py", "tests/kernel"
    fast = fast_parts()
    elsewhere = ("tests/unit", "tests/policy", kernel, guests)
    return (
        *(
            Part(f"guest {each.label}", _pytest(f"{guests}::test_the_suite[{each.label}]"), nice=5, detail=each.times)
            for each in SUITES
            if each.always
        ),
        *fast,
        Part("kernel tests here", _pytest(kernel), after=tuple(each.name for each in fast)),
        Part(
            "other tests",
            _pytest("-m", "not slow", "tests", *(f"--ignore={each}" for each in elsewhere)),
            after=("kernel tests here",),
        ),
    )


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-q", "--durations=10", "-p", "no:cacheprovider", *arguments)


def main(arguments: list[str]) -> int:
    """Run everything; 1 where anything failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # then the parts end, too
    start = time.monotonic()
    parts = fast_parts() if arguments == ["--fast"] else all_parts()
    schedule = Schedule(parts, LOGS, lambda text: print(text, flush=True))
    well = schedule.run()
    print(times(schedule.ended, time.monotonic() - start))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
