"""Rules that cannot be evaluated where everything is 0 or empty, as are most of those that never can be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator

from ..errors import PolicyError
from ..events.event import EventType
from ..policy.causes import FAILS
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Rule
from ..policy.mistake import Mistake
from .compiled import sample

_LONGEST_S = 20.0
"""For all rules; those that are left then are not tried."""


def failing(engine: EmbeddedEngine, types: Iterable[EventType]) -> Iterator[Mistake]:
    """Each with the first of its kinds; `types`: all kinds."""
    samples = {each.name: json.dumps(sample(each)) for each in types}
    until = time.monotonic() + _LONGEST_S
    for rule in engine.rules:
        for kind, document in samples.items():
            if time.monotonic() > until:
                return
            if rule.concerns(kind):
                try:
                    engine.alone.fires(rule, document)
                except PolicyError as error:
                    yield fails(rule, f"an event of {kind} in which everything is 0 or empty", error)
                    break


def fails(rule: Rule, event: str, error: PolicyError) -> Mistake:
    """It cannot be evaluated for such an event."""
    what = f"it cannot be evaluated for {event}: {error}"
    return Mistake(rule.place, FAILS, rule.id, what, "put conditions before that which exclude what it cannot take")
