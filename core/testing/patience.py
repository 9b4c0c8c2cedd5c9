"""How long tests wait for what must come."""

import time
from collections.abc import Callable

PATIENCE_S = 300.0
"""Longer than anything takes that works, in a guest that shares a processor with others: only failures take it."""
_AGAIN_S = 0.1


def wait_for(
    what: Callable[[], object], found: Callable[[], object] = lambda: "", *, timeout_s: float = PATIENCE_S
) -> None:
    """Wait until `what` returns something true. Raises `AssertionError` with what `found` returns where that never
    comes."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, found()
        time.sleep(_AGAIN_S)
