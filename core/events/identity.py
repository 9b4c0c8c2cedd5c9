"""Which process, and which file: keys of everything that is known of either."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """A file as the kernel knows it: which one it is, whatever it is called in whichever namespace."""

    dev: int
    ino: int
    generation: int


class Key(NamedTuple):
    """A process. Of those seeded from /proc the start time is only known to a clock tick, rounded down."""

    tgid: int
    start_time: int
