"""Detaching: closing what holds attached programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from threading import Thread


def detach(descriptors: Iterable[int]) -> None:
    """Close them side by side, and return when all are closed.

    Each waits for grace periods of the kernel: a trampoline some 0.1 s, a kprobe less. Trampolines wait for each other
    under a lock of the kernel's; what else is closed need not wait for them.
    """
    started = []
    for each in descriptors:
        thread = Thread(target=os.close, args=(each,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there may be no more of them: pids.max, RLIMIT_NPROC
            os.close(each)
        else:
            started.append(thread)
    for thread in started:
        thread.join()
