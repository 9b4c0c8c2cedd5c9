"""What keeps the agent itself going, at intervals: its process, its probes, and the note that it lives."""

from __future__ import annotations

import logging

from ..enforce.resources import Resources
from .control import Control
from .endurance import Endurance
from .guarding import Guarding
from .news import News
from .presence import Presence, Pulse
from .probe_watch import ProbeWatch
from .reports import Reports
from .roaming import Roaming
from .scans import Scans
from .signals import Signals

_log = logging.getLogger("krie")


class Upkeep:
    """To be made when the agent has started: from then on it notices that its process was changed or held up."""

    def __init__(
        self,
        signals: Signals,
        endurance: Endurance,
        control: Control,
        news: News,
        probes: ProbeWatch,
        presence: Presence,
        scans: Scans,
        roaming: Roaming,
        guarding: Guarding,
        reports: Reports,
    ) -> None:
        """Look at how this process stands."""
        self._signals, self._endurance, self._control, self._news = signals, endurance, control, news
        self._probes, self._presence, self._scans, self._roaming = probes, presence, scans, roaming
        self._guarding, self._reports = guarding, reports
        self._resources = Resources()
        self._pulse = Pulse()  # until here it waited long, for the compiler and the kernel

    def beat(self) -> None:
        """Do what is due once a second: put resources right, report failures and gaps, check the probes."""
        continued = self._signals.take_continued()
        for attempt in self._resources.look():  # first: all else may need what was taken
            self._reports.put_right(attempt)
        for failing in self._endurance.look():
            self._reports.trouble(failing)
        held_up_s = self._pulse.beat(continued=continued)
        if held_up_s and not self._guarding.hears_silence:  # else that timer tells it, and by what
            self._reports.held_up(held_up_s)
        self._control.resume()
        self._news.tell()
        if self._probes.due:
            self.check()

    def check(self) -> None:
        """Look after the probes, and note that the agent lives."""
        self._probes.check()
        self._presence.keep()

    def roam(self) -> None:
        """Move the programs that roam."""
        self._scans.scan_what_is_put_right()
        for probe, why in self._roaming.move().items():
            _log.error("probe %s stays where it was: %s", probe, why)
