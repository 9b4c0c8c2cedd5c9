"""Functions that the kernel is about to call: timers that wait, work items that are queued or run.

Nothing is locked: a list may change while it is walked, and what was read of it is then worth nothing. So a walk ends
where it leads to no memory, and whoever reports what it found looks again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from krie import KernelError, KernelMemory

from .entry import Entry

Offsets = Mapping[tuple[str, str], int | None]

_POSSIBLE = Path("/sys/devices/system/cpu/possible")
_OFFSETS = "__per_cpu_offset"
_TIMERS, POOLS, _UNBOUND = "timer_bases", "cpu_worker_pools", "unbound_pool_hash"
_DELAYED = "delayed_work_timer_fn"
SYMBOLS = (_OFFSETS, _TIMERS, POOLS, _UNBOUND, _DELAYED)
FIELDS = (
    ("timer_base", "vectors"),
    ("timer_list", "entry"),
    ("timer_list", "function"),
    ("delayed_work", "timer"),
    ("delayed_work", "work"),
    ("work_struct", "entry"),
    ("work_struct", "func"),
    ("worker_pool", "worklist"),
    ("worker_pool", "workers"),
    ("worker_pool", "hash_node"),
    ("worker", "node"),
    ("worker", "current_func"),
)
SIZES = (
    ("timer_base", ""),
    ("timer_base", "vectors"),
    ("worker_pool", ""),
)
"""Types and fields whose sizes must be known: `offsets` has them under these names with a `#` before."""
_BASES_BYTES, _POOLS_BYTES = ("#variable", _TIMERS), ("#variable", POOLS)
VARIABLES = (_TIMERS, POOLS)
"""Per-CPU variables whose sizes must be known: `offsets` has them as of the type `#variable`."""
_MOST = 65536
"""Elements of one CPU's: far more wait nowhere."""
_HASH = 64
"""Buckets of `unbound_pool_hash` (UNBOUND_POOL_HASH_ORDER)."""


def possible(place: Path = _POSSIBLE) -> list[int]:
    """Numbers of the CPUs that there may be. Raises `OSError`."""
    found: list[int] = []
    for part in place.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


class Pending:
    """What waits on all CPUs."""

    def __init__(self, memory: KernelMemory, address: Callable[[str], int], offsets: Offsets) -> None:
        """`address` knows `SYMBOLS`, and `offsets` those of `FIELDS`, `SIZES` and `VARIABLES`."""
        self._memory, self._address, self._offsets = memory, address, offsets

    def timers(self) -> Iterator[Entry]:
        """Raises `KernelError` where the kernel does not tell where they are."""
        at, room = self._offset("timer_base", "vectors"), self._offset("#timer_base", "vectors")
        size, whole = self._offset("#timer_base", ""), self._offset(*_BASES_BYTES)
        entry, function = self._offset("timer_list", "entry"), self._offset("timer_list", "function")
        to_work = self._offset("delayed_work", "work") - self._offset("delayed_work", "timer")
        to_work += self._offset("work_struct", "func")
        delayed = self._address(_DELAYED)
        for bases in self._on_each_cpu(_TIMERS):
            for base in range(bases, bases + whole, size):
                for (first,) in struct.iter_unpack("=Q", self._memory.read(base + at, room)):
                    for node in self._chain(first, 0):
                        timer = node - entry
                        found = self._number(timer + function)
                        if found and found == delayed:
                            place = timer + to_work
                            yield from self._entry("delayed work", place)
                        elif found:
                            yield Entry("timers", timer + function, found)

    def work(self) -> Iterator[Entry]:
        """Queued, and running. Raises `KernelError`."""
        size, whole = self._offset("#worker_pool", ""), self._offset(*_POOLS_BYTES)
        hashed = self._offset("worker_pool", "hash_node")
        for pools in self._on_each_cpu(POOLS):
            for pool in range(pools, pools + whole, size):
                yield from self._work_of(pool)
        if buckets := self._address(_UNBOUND):
            for (first,) in struct.iter_unpack("=Q", self._memory.read(buckets, 8 * _HASH)):
                for node in self._chain(first, 0):
                    yield from self._work_of(node - hashed)

    def _work_of(self, pool: int) -> Iterator[Entry]:
        entry, function = self._offset("work_struct", "entry"), self._offset("work_struct", "func")
        node, current = self._offset("worker", "node"), self._offset("worker", "current_func")
        for head, field, place in (
            (pool + self._offset("worker_pool", "worklist"), entry, function),
            (pool + self._offset("worker_pool", "workers"), node, current),
        ):
            for each in self._chain(self._number(head), head):
                yield from self._entry("work items", each - field + place)

    def _entry(self, name: str, place: int) -> Iterator[Entry]:
        if found := self._number(place):  # a worker without work has none
            yield Entry(name, place, found)

    def _chain(self, first: int, last: int) -> Iterator[int]:
        """Elements whose first word leads to the next one, until `last`, 0, or no memory."""
        for _ in range(_MOST):
            if first in (0, last):
                return
            yield first
            first = self._number(first)

    def _number(self, address: int) -> int:
        """0 where it cannot be read: it has been freed meanwhile."""
        try:
            return self._memory.number(address)
        except KernelError:
            return 0

    def _on_each_cpu(self, name: str) -> Iterator[int]:
        variable, table = self._address(name), self._address(_OFFSETS)
        if not variable or not table:
            return
        for cpu in possible():
            yield (variable + self._memory.number(table + 8 * cpu)) & 0xFFFF_FFFF_FFFF_FFFF

    def _offset(self, type_name: str, path: str) -> int:
        offset = self._offsets.get((type_name, path))
        if offset is None:
            raise KernelError(f"looking for {type_name}.{path}", 0)
        return offset
