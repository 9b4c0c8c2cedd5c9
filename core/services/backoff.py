"""How long to wait after failures: twice as long each time, and not at the same moment as all other hosts."""

from __future__ import annotations

_FIRST_S = 1.0


def backoff_s(failures: int, most_s: float, draw: float) -> float:
    """After so many failures in a row. `draw`: a number from 0 to 1, by which the wait is up to half shorter."""
    return min(most_s, _FIRST_S * 2.0 ** min(failures - 1, 32)) * (1.0 - draw / 2.0)
