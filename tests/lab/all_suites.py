"""`make test-kernels`: runs all suites, two at once, and renews the tables of docs/reference/kernels.md.

Where no suites are chosen, the unit for systemd is tried, too, in a guest of its own, and what takes long without one.
"""

import re
import signal
import sys
import time

from ..schedule import ROOT, Part, Schedule, times
from .findings import checks, findings, table
from .suites import SUITES, Suite

_AT_ONCE = 2
"""A guest keeps one processor busy."""
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
_OTHERS = (
    Part("systemd unit", (*_PYTEST, "tests/lab/test_service.py")),
    Part("slow unit tests", (*_PYTEST, "-m", "slow", "tests/unit", "tests/policy")),
)
_BLOCK = r"(<!-- measured: {} -->\n).*?(<!-- end -->)"


def parts(labels: list[str]) -> list[Part]:
    """Those of these labels, or all; the longest first, so that the end is not one guest alone.

    Raises `SystemExit` for a label that no suite has.
    """
    if unknown := set(labels) - {each.label for each in SUITES}:
        sys.exit(f"no suite is labelled {', '.join(sorted(unknown))}; there are {', '.join(s.label for s in SUITES)}")
    wanted = [each for each in SUITES if not labels or each.label in labels]
    return [*(_part(each) for each in sorted(wanted, key=lambda each: not each.stock)), *([] if labels else _OTHERS)]


def _part(suite: Suite) -> Part:
    return Part(suite.label, (sys.executable, "-m", "tests.lab.suite", suite.label), detail=suite.times)


def renewed(text: str) -> str:
    """The page with the tables in which each column is of a suite's last run."""
    ran = [each for each in map(findings, SUITES) if each.doctor]
    for block, made in (("kernels", table(ran)), ("checks", checks([each for each in ran if each.figures]))):
        text = re.sub(_BLOCK.format(block), rf"\g<1>{made}\g<2>", text, flags=re.DOTALL)
    return text


def main(labels: list[str]) -> int:
    """Run the suites of these labels, or all; 1 where anything failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # then the guests end, too
    start = time.monotonic()
    schedule = Schedule(parts(labels), ROOT / ".cache/test", lambda text: print(text, flush=True), at_once=_AT_ONCE)
    well = schedule.run()
    page = ROOT / "docs/reference/kernels.md"
    page.write_text(renewed(page.read_text()))
    print(times(schedule.ended, time.monotonic() - start))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
