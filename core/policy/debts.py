"""Keeps packages that take too long from holding all other events up: what was asked in vain is paid for by rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

_REST = 10
_LEAST_REST_S = 1.0
_INPUTS = 256
_SHARE, _CREDIT_S = 0.1, 2.0


class Debts:
    """What failed evaluations cost, by package.

    The very input that one failed for rests for ten times as long as that took. All others about events of the same
    kind are evaluated until failures cost more than 2 s, and from then on a tenth of the time: else whoever finds
    inputs that a policy is slow for could hold up the decisions about everything.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing has failed yet. `clock`: seconds."""
        self._clock = clock
        self._inputs: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._kinds: dict[tuple[str, str], tuple[float, float, str]] = {}

    @property
    def none(self) -> bool:
        """Nothing failed recently."""
        return not self._inputs and not self._kinds

    def failed(self, package: str, kind: str, document: str, spent_s: float, why: str) -> None:
        """An evaluation was in vain, and took so long."""
        now = self._clock()
        self._inputs[package, document] = now + max(_LEAST_REST_S, _REST * spent_s), why
        if len(self._inputs) > _INPUTS:
            self._inputs.popitem(last=False)
        debt, _ = self._debt(package, kind)
        self._kinds[package, kind] = debt + max(spent_s, _LEAST_REST_S / _REST), now, why

    def rests(self, package: str, kind: str, document: str) -> str:
        """Why a package is not to be asked now; empty where it is."""
        now = self._clock()
        while self._inputs and next(iter(self._inputs.values()))[0] <= now:
            self._inputs.popitem(last=False)
        until, why = self._inputs.get((package, document), (0.0, ""))
        if until > now:
            return f"not asked about this for {until - now:.0f} s more: {why}"
        debt, why = self._debt(package, kind)
        if debt > _CREDIT_S:
            left_s = (debt - _CREDIT_S) / _SHARE
            return f"not asked about {kind} for {left_s:.0f} s more, since that failed too often: {why}"
        if not debt:
            self._kinds.pop((package, kind), None)
        return ""

    def _debt(self, package: str, kind: str) -> tuple[float, str]:
        debt, at, why = self._kinds.get((package, kind), (0.0, 0.0, ""))
        return max(0.0, debt - _SHARE * (self._clock() - at)), why
