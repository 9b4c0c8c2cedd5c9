"""Loads programs side by side before they are attached one by one: most of a start is the verifier's.

The kernel verifies privileged callers' programs in parallel (45a73c17bfb9), so each processor can take one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ..kernel.program import Program

_MOST_THREADS = 4


class Ahead:
    """Programs that were loaded before anybody asked. Whoever takes one owns its descriptor."""

    def __init__(self, load: Callable[[Program], int], programs: Iterable[Program]) -> None:
        """Load these, and return when that is done. `load` runs in several threads; what it raises, `take` raises."""
        self._load = load
        self._loaded: dict[Program, Future[int]] = {}
        with ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)))) as threads:
            for each in programs:
                self._loaded[each] = threads.submit(load, each)
            wait(self._loaded.values())

    def take(self, program: Program) -> int:
        """The descriptor of this program, which is loaded now if it was not before. Raises what `load` raises."""
        future = self._loaded.pop(program, None)
        return self._load(program) if future is None else future.result()

    def close(self) -> None:
        """Unload what nobody took."""
        for future in self._loaded.values():
            if future.exception() is None:
                os.close(future.result())
        self._loaded.clear()
