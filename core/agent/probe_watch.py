"""Whether the probes live: looked at by their canaries, told, and attached again where they were silenced."""

from __future__ import annotations

import logging
import time

from ..errors import KernelError, PluginError
from ..loader.launcher import LoadedSet
from ..plugin.manager import Plugins
from .ground import Ground
from .guarding import Guarding
from .health import ProbeHealth
from .input_health import InputHealth
from .policy_in_force import PolicyInForce
from .reattach import reattach, renew
from .reports import Reports
from .unseen import Unseen

_LOOK_AGAIN_S = 2.0
"""When probes that were silenced are tried again; later and later, up to `agent.canary_interval_s`."""
_log = logging.getLogger("krie")


class ProbeWatch:
    """Looks after all probes of the agent."""

    def __init__(
        self,
        probes: ProbeHealth,
        loaded: LoadedSet,
        plugins: Plugins,
        ground: Ground,
        guarding: Guarding,
        in_force: PolicyInForce,
        unseen: Unseen,
        reports: Reports,
        health: InputHealth,
        interval_s: float,
    ) -> None:
        """`loaded`: by which probes are attached again, where `ground` allows it; `interval_s`: how often `check` is
        called in any case.
        """
        self._probes, self._loaded, self._plugins = probes, loaded, plugins
        self._ground, self._guarding = ground, guarding
        self._in_force, self._unseen, self._reports, self._health = in_force, unseen, reports, health
        self._interval_s = interval_s
        self._silent_until, self._look_again_s = 0.0, _LOOK_AGAIN_S

    def begin(self) -> None:
        """Tell how all of them stand. Raises `PluginError` where a required one does not work.

        That is asked at the start only: an agent that ended because its probes were silenced would finish the
        attacker's work.
        """
        for report in self._probes.reports:
            self._reports.probe(report, self._in_force.policy)
        for report in self._probes.reports:
            required = report.probe.required or report.plugin in self._plugins.required
            if required and report.state in ("missing", "silent"):
                problem = f"probe {report.probe.name} is {report.state} and required: {report.reason}"
                raise PluginError(report.plugin, problem)

    @property
    def due(self) -> bool:
        """Whether probes that were silenced are to be looked at again by now."""
        return bool(self._silent_until) and time.monotonic() >= self._silent_until

    def check(self) -> None:
        """Run all canaries, and tell what has changed."""
        for report in self._probes.check():
            self._reports.probe(report, self._in_force.policy)
        self._look_again_if_silent()
        self._renew()
        self._guarding.look_for_holders()
        self._plugins.checked(self._probes.reports, self._unseen.tell_runs())
        self._health.update()

    def _renew(self) -> None:
        try:
            found = renew(self._probes.reports, self._loaded)
        except (KernelError, OSError) as error:
            _log.error("whether perf events and tail calls are as they were left is not known: %s", error)
            return
        if found:
            _log.error(
                "programs had been taken out of the tail calls that lead to them, and are put back: %s",
                ", ".join(found),
            )
            self._reports.put_right("disarmed")

    def _look_again_if_silent(self) -> None:
        """Probes that were silenced are armed again if the agent can, and looked at soon."""
        if not any(each.state == "silent" for each in self._probes.reports):
            self._silent_until, self._look_again_s = 0.0, _LOOK_AGAIN_S
            return
        for probe, why in reattach(self._probes.reports, self._loaded, self._ground).items():
            _log.error("probe %s could not be attached again: %s", probe, why)
        self._guarding.rearm(self._ground.obstacle)
        self._silent_until = time.monotonic() + self._look_again_s
        self._look_again_s = min(2 * self._look_again_s, self._interval_s)
