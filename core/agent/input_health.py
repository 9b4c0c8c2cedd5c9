"""`input.health` as policies see it: how the agent stood when the event was taken."""

from __future__ import annotations

from ..opa.server import OpaServer
from ..plugin.manager import Plugins
from ..services.desk import Desk
from .bus import Bus
from .health import Losses, ProbeHealth, health_facts
from .missed import MissedRuns


class InputHealth:
    """Collects it from where things are known, and gives it to the bus."""

    def __init__(
        self,
        bus: Bus,
        losses: Losses,
        missed: MissedRuns,
        probes: ProbeHealth,
        plugins: Plugins,
        desk: Desk,
        opa: OpaServer | None,
    ) -> None:
        """Nothing is given before `update`. `opa`: the server that is to decide."""
        self._bus, self._losses, self._missed = bus, losses, missed
        self._probes, self._plugins, self._desk, self._opa = probes, plugins, desk, opa
        self.policy_failures = 0
        """Of all policies since the start; counted by who tells them."""

    def update(self) -> None:
        """Something has changed: the events from here on are judged with it."""
        self._bus.health = health_facts(
            self._losses.total,
            self._missed.total,
            self.policy_failures,
            self._probes.reports,
            self._plugins.degraded,
            self._desk.troubles,
            stands_in=self._opa is not None and self._opa.engine != "opa",
        )
