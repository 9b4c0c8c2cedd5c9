"""Who is at the other end of a socket."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    tgid: int
    uid: int
