"""Which lines are written at all, and which of them also to the file that keeps what matters.

That file has a retention of its own, and nobody fills it: of lines of one kind by the same rules about one user,
whatever users he becomes, some are taken at once and then a few a minute. The rest is in the journal like every line,
and counted here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from ..decision import Action, Decision
from ..enforce.enforcer import Effect
from ..events.event import Event
from ..policy.engine import SEVERE, Rule

_AT_ONCE, _EACH_S = 50, 6.0
_KEYS = 16384


class Selection:
    """Asked for each event."""

    def __init__(
        self,
        min_action: Action,
        always: Iterable[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        whose: Callable[[Event], Hashable] = lambda event: event.uid,
    ) -> None:
        """`always`: kinds whose lines are written whatever was decided, which are the agent's own.

        `whose`: who stands behind an event, however many users he has.
        """
        self._min_action, self._always, self._clock, self._whose = min_action, frozenset(always), clock, whose
        self._severe: frozenset[str] = frozenset()
        self._due: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self.left_out = 0
        """Lines that matter and are in the journal only, since many like them came."""

    def policy_changed(self, rules: Iterable[Rule]) -> None:
        """Know which rules are severe."""
        self._severe = frozenset(each.id for each in rules if each.metadata.severity in SEVERE)

    def wanted(self, event: Event, decision: Decision, effect: Effect) -> bool:
        """Whether a line is written at all."""
        return decision.action >= self._min_action or bool(effect.done) or event.kind in self._always

    def matters(self, event: Event, decision: Decision, effect: Effect) -> bool:
        """Whether the line also belongs to what is kept longer."""
        fired = [each.id for each in decision.rules if each.id in self._severe or each.action > Action.LOG]
        if not fired and not effect.done:
            return False
        key = (event.kind, self._whose(event), *fired, *effect.done)
        now = self._clock()
        due = max(self._due.pop(key, 0.0), now - _AT_ONCE * _EACH_S)
        if kept := due <= now:
            due += _EACH_S
        else:
            self.left_out += 1
        self._due[key] = due
        if len(self._due) > _KEYS:
            self._due.popitem(last=False)
        return kept
