"""Functions of the timers of high resolution that wait."""

from __future__ import annotations

from collections.abc import Iterator

from .entry import Entry
from .walker import Walker

BASES = "hrtimer_bases"
SYMBOLS = (BASES,)
FIELDS = (
    ("hrtimer_cpu_base", "clock_base"),
    ("hrtimer_clock_base", "active"),
    ("hrtimer", "node"),
    ("hrtimer", "function"),
)
SIZES = (
    ("hrtimer_cpu_base", "clock_base"),
    ("hrtimer_clock_base", ""),
)


def hrtimers(walker: Walker) -> Iterator[Entry]:
    """Those of all CPUs and clocks. Raises `KernelError` where the kernel does not tell where they are."""
    first, room = walker.offset("hrtimer_cpu_base", "clock_base"), walker.offset("#hrtimer_cpu_base", "clock_base")
    size, active = walker.offset("#hrtimer_clock_base", ""), walker.offset("hrtimer_clock_base", "active")
    node, function = walker.offset("hrtimer", "node"), walker.offset("hrtimer", "function")
    for bases in walker.on_each_cpu(BASES):
        for clock in range(bases + first, bases + first + room, size):
            for each in walker.tree(walker.number(clock + active)):
                place = each - node + function
                if found := walker.number(place):
                    yield Entry("high-resolution timers", place, found)
