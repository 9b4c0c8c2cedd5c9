"""Detaching: closing what holds attached programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Thread


def detach(descriptors: Iterable[int]) -> None:
    """Close them side by side, and return when all are closed.

    Each waits for grace periods of the kernel: a trampoline some 0.1 s, a kprobe less. Those of one sort wait for each
    other, under the kernel's locks, but not for those of another sort.
    """
    threads = [Thread(target=os.close, args=(each,), daemon=True) for each in descriptors]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
