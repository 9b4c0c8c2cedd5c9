"""What the journal lacks, told: records lost or held back, and runs of probes that the kernel left out."""

from __future__ import annotations

import logging

from ..errors import KernelError
from .budget import Budgets
from .bus import Bus
from .health import Losses
from .inbox import Inbox
from .journal import Writers
from .missed import MissedRuns
from .reports import Reports

_log = logging.getLogger("krie")


class Unseen:
    """Compares what was counted on the way; what is new since the last look is told."""

    def __init__(
        self,
        losses: Losses,
        budgets: Budgets,
        missed: MissedRuns,
        bus: Bus,
        inbox: Inbox,
        writers: Writers,
        reports: Reports,
    ) -> None:
        """`bus`, `inbox` and `writers` know how much came, waits, and could not be written."""
        self._losses, self._budgets, self._missed = losses, budgets, missed
        self._bus, self._inbox, self._writers, self._reports = bus, inbox, writers, reports

    def tell_records(self) -> bool:
        """Records that were lost or held back; returns whether any were lost."""
        overflowed = sum(each.overflowed for each in self._writers.all)
        failed = sum(each.failed for each in self._writers.all)
        bus, drained = self._bus, not self._inbox.backlog
        lost = list(self._losses.look(bus.received, bus.undecodable, overflowed, failed, drained=drained))
        for loss in lost:
            self._reports.loss(loss)
        for held in self._budgets.look():
            self._reports.held(held)
        return bool(lost)

    def tell_runs(self) -> dict[str, int]:
        """Runs that were left out; returns how many, by the labels of their programs."""
        try:
            found = list(self._missed.look())
        except KernelError as error:
            _log.error("runs that the kernel left out are not counted: %s", error)
            return {}
        for missed in found:
            self._reports.missed(missed)
        return {each.program: each.count for each in found}
