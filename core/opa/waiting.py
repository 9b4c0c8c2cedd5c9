"""How much of its time the agent spends waiting for an OPA server, within a sliding window."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0
_SLOT_S = WINDOW_S / 50
"""Queries of so long a time are kept as one entry, so that the memory does not grow with their number."""


class Waiting:
    """The share of the window that may be spent, and what was spent."""

    def __init__(self, percent: int) -> None:
        """`percent`: of the window; 100: all of it, so no limit."""
        self._budget_s = WINDOW_S * percent / 100
        self._unlimited = percent >= 100
        self._slots: deque[tuple[float, int, float]] = deque()
        self.queries, self.spent_s = 0, 0.0
        """Those within the window, as of the last call, and the time that they cost."""

    def note(self, now: float, queries: int, spent_s: float) -> None:
        """Add what was asked, or would have been, and what waiting for it cost."""
        self._forget(now)
        if self._slots and now - self._slots[-1][0] < _SLOT_S:
            start, before, cost = self._slots.pop()
            self._slots.append((start, before + queries, cost + spent_s))
        else:
            self._slots.append((now, queries, spent_s))
        self.queries += queries
        self.spent_s += spent_s

    def spent_within(self, now: float) -> float:
        """Seconds that were spent within the window."""
        self._forget(now)
        return self.spent_s

    def over(self, now: float) -> bool:
        """Whether more was spent than may be."""
        return not self._unlimited and self.spent_within(now) > self._budget_s

    def fits(self, now: float, latency_s: float) -> bool:
        """Whether as many queries as recently would cost less than half of the budget if each took `latency_s`, and
        what was spent is below that, too: half, so that a server at the limit is not taken and left time and again.
        """
        return self._unlimited or max(self.spent_within(now), self.queries * latency_s) <= self._budget_s / 2

    def _forget(self, now: float) -> None:
        while self._slots and now - self._slots[0][0] >= WINDOW_S:
            _, queries, spent_s = self._slots.popleft()
            self.queries -= queries
            self.spent_s -= spent_s
        if not self._slots:  # and with it what the subtractions left behind the point
            self.queries, self.spent_s = 0, 0.0
