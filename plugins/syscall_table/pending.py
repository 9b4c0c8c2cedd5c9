"""Functions that the kernel is about to call: timers that wait, work items that are queued or run."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .entry import Entry
from .walker import Walker

_TIMERS, POOLS, _UNBOUND = "timer_bases", "cpu_worker_pools", "unbound_pool_hash"
_DELAYED = "delayed_work_timer_fn"
SYMBOLS = (_TIMERS, POOLS, _UNBOUND, _DELAYED)
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
_HASH = 64
"""Buckets of `unbound_pool_hash` (UNBOUND_POOL_HASH_ORDER)."""


def timers(walker: Walker) -> Iterator[Entry]:
    """Raises `KernelError` where the kernel does not tell where they are."""
    at, room = walker.offset("timer_base", "vectors"), walker.offset("#timer_base", "vectors")
    size, whole = walker.offset("#timer_base", ""), walker.offset(*_BASES_BYTES)
    entry, function = walker.offset("timer_list", "entry"), walker.offset("timer_list", "function")
    to_work = walker.offset("delayed_work", "work") - walker.offset("delayed_work", "timer")
    to_work += walker.offset("work_struct", "func")
    delayed = walker.address(_DELAYED)
    for bases in walker.on_each_cpu(_TIMERS):
        for base in range(bases, bases + whole, size):
            for (first,) in struct.iter_unpack("=Q", walker.memory.read(base + at, room)):
                for node in walker.chain(first, 0):
                    timer = node - entry
                    found = walker.number(timer + function)
                    if found and found == delayed:
                        place = timer + to_work
                        yield from _entry(walker, "delayed work", place)
                    elif found:
                        yield Entry("timers", timer + function, found)


def work(walker: Walker) -> Iterator[Entry]:
    """Queued, and running. Raises `KernelError`."""
    size, whole = walker.offset("#worker_pool", ""), walker.offset(*_POOLS_BYTES)
    hashed = walker.offset("worker_pool", "hash_node")
    for pools in walker.on_each_cpu(POOLS):
        for pool in range(pools, pools + whole, size):
            yield from _work_of(walker, pool)
    if buckets := walker.address(_UNBOUND):
        for (first,) in struct.iter_unpack("=Q", walker.memory.read(buckets, 8 * _HASH)):
            for node in walker.chain(first, 0):
                yield from _work_of(walker, node - hashed)


def _work_of(walker: Walker, pool: int) -> Iterator[Entry]:
    entry, function = walker.offset("work_struct", "entry"), walker.offset("work_struct", "func")
    node, current = walker.offset("worker", "node"), walker.offset("worker", "current_func")
    for head, field, place in (
        (pool + walker.offset("worker_pool", "worklist"), entry, function),
        (pool + walker.offset("worker_pool", "workers"), node, current),
    ):
        for each in walker.chain(walker.number(head), head):
            yield from _entry(walker, "work items", each - field + place)


def _entry(walker: Walker, name: str, place: int) -> Iterator[Entry]:
    if found := walker.number(place):  # a worker without work has none
        yield Entry(name, place, found)
