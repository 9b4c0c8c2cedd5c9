"""What programs refused to poisoned processes and to strangers, told."""

from __future__ import annotations

import logging

from ..enforce.containment import Refusals, take_refusals
from ..enforce.enforcer import RuleNumbers
from ..events.enforcement import Contained, Guarded
from ..events.operations import GUARDED, OPERATIONS, SEEN
from ..kernel.maps import Map
from .pending import Pending

_log = logging.getLogger("krie")


def tell_refusals(counts: Map, rules: RuleNumbers, pending: Pending) -> None:
    """Empty the map `containment_counts`."""
    for each in take_refusals(counts):
        if each.operation in GUARDED:
            _tell_attempt(each, GUARDED[each.operation], pending)
        elif each.operation in OPERATIONS:
            pending.tell(
                Contained,
                contained_tgid=each.process.tgid,
                contained_start_time=each.process.start_time,
                count=each.count,
                operation=OPERATIONS[each.operation],
                rule=rules.name(each.rule),
            )


def _tell_attempt(refused: Refusals, attempt: str, pending: Pending) -> None:
    seen = "which nothing refuses" if attempt in SEEN else "and was refused"
    _log.error("process %d tried to harm the agent (%s), %s", refused.process.tgid, attempt, seen)
    pending.tell(
        Guarded,
        stranger_tgid=refused.process.tgid,
        stranger_start_time=refused.process.start_time,
        count=refused.count,
        attempt=attempt,
    )
