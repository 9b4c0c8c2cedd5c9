"""Everything about enforcement that lives as long as the agent: built here, looked after once a second, asked and
cleared by administrators. What a decision leads to is in `krie.enforce.enforcer`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..config import Config
from ..decision import Mode
from ..enforce import containment
from ..enforce.enforcer import Enforcer, RuleNumbers
from ..enforce.self_defence import Guard
from ..enforce.verdicts import Verdict
from ..errors import KernelError
from ..events.core_maps import Flags
from ..events.enforcement import Cleared
from ..events.event import Event, EventTypes
from ..events.identity import Identity, Key
from ..events.operations import OPERATIONS
from ..kernel.maps import Map
from ..plugin.manager import Plugins
from ..plugin.probe import Sensor
from ..plugin.report import ProbeReport
from ..processes.executables import Executables, resolve
from ..processes.principal import PrincipalOf
from ..procfs import procfs
from ..tier.candidate import Candidate
from ..tier.kernel_tables import KernelTables
from .abilities import Abilities
from .breakers import Breakers
from .clearing import Clearing
from .guarding import Guarding
from .health import ProbeHealth
from .kernel_tier import KernelTier, enforced_kinds
from .levers import Levers
from .pending import Pending, Told
from .prepared import Prepared
from .refusals import tell_refusals
from .sending import Sending

_log = logging.getLogger("krie")
_SECOND = 1_000_000_000
_SHOWN = 500
_REST = 10
"""So many times as long as a walk through all poisoned processes took, there is no other."""


class Enforcing:
    """The verdict tables with everything that changes them."""

    def __init__(
        self,
        config: Config,
        levers: Levers,
        sending: Sending,
        sensors: Sequence[Sensor],
        types: EventTypes,
        plugins: Plugins,
        probes: ProbeHealth,
        stack: ExitStack,
        tables_of: Callable[[Mapping[str, Map], Sequence[int]], KernelTables] = KernelTables,
        new_guard: Callable[[], Guard] = Guard,
        *,
        agent_tgid: int,
        principal_of: PrincipalOf,
    ) -> None:
        """Touch nothing yet; `stack` lets go of files. `tables_of`: the tables in these maps, for these kinds.

        `principal_of`: whom the breakers count for an event.
        """
        self._config, self._levers, self._probes, self._types = config.enforcement, levers, probes, types
        self._verdicts, self._modes = levers.verdicts, plugins.modes
        self._enforces = any(mode is Mode.ENFORCE for mode in self._modes.values())
        self._rules, self._pending, self._agent_tgid = RuleNumbers(), Pending(), agent_tgid
        tables = tables_of(levers.maps, levers.kinds)
        enforced = enforced_kinds(sensors, self._modes)
        self.tier = KernelTier(enforced, tables, self._rules.number, self._config.poison_s)
        self._breakers = Breakers(self._config, self.tier, self._pending)
        self.enforcer = Enforcer(
            self._config,
            self._verdicts,
            self._breakers.circuit,
            self._rules,
            agent_tgid,
            Abilities(sensors, self._modes, probes, plugins).of,
            self._decided,
            principal_of,
            self._tell_gave_way,
            levers.bindings.start_time,
        )
        self.clearing = Clearing(
            self._config, self._verdicts, self._rules, self._breakers, self._pending, enforces=self._enforces
        )
        self._executables = Executables({}, {}, ())
        self._looked_at: frozenset[Identity] = frozenset()
        self._expire_from = 0
        stack.callback(self._close_executables)
        guard = new_guard()
        stack.callback(guard.close)
        self.guarding = Guarding(config, guard, levers, sending, probes, self._pending)

    def start(self, first: Candidate) -> None:
        """Let programs act. Call it when the agent is armed and its probes were checked."""
        self.take_over(self.prepare(first))
        self.guarding.watch()
        if not self._enforces:
            return
        contained = containment.refused_operations(self._probes.reports)
        self.enforcer.contained = len(contained)
        self._say_what_holds(contained)
        self._verdicts.set_poison_time(self._config.poison_s * _SECOND)
        self._verdicts.enforce((self._modes.get(each) is Mode.ENFORCE) for each in self._levers.sensors)
        if self._config.guard and contained:
            self.guarding.start()

    def stop(self) -> None:
        """Let programs act no more: what was decided ends with the agent, as it would by SIGKILL."""
        self.guarding.stop()
        self._verdicts.enforce(False for _ in self._levers.sensors)
        self._verdicts.set_flags(Flags(0))
        self.tier.remove()
        for each in (*self._verdicts.poisoned(), *self._verdicts.bound()):
            self._verdicts.clear(each)

    def prepare(self, candidate: Candidate) -> Prepared:
        """Make its tables and look at the protected programs again, next to what is in force; `take_over` must follow.

        Raises `KernelError`, `PolicyError`; then nothing has changed.
        """
        paths = {path: path for path in self._config.protected}
        with ExitStack() as undo:
            protected = resolve(paths, self._levers.inspector.identify)
            undo.callback(protected.close)
            part = self.tier.prepare(candidate.tiers, candidate.numbers)
            undo.callback(self.tier.drop, part)
            # These are protected besides those in force until then.
            self._verdicts.protect(protected.names)
            undo.callback(self._verdicts.protect_only, self._executables.names)
            self._levers.bindings.look_at({*candidate.executables.names, *protected.names})
            undo.pop_all()
        return Prepared(candidate, part, protected)

    def take_over(self, prepared: Prepared) -> None:
        """Bring into force what was prepared, and re-arm the breakers.

        Raises `KernelError`; then what was prepared is let go, and what was in force stays so wholly.
        """
        try:
            self.tier.take_over(prepared.part)
        except KernelError:
            self._verdicts.protect_only(self._executables.names)
            self._levers.bindings.look_only_at(self._looked_at)
            prepared.protected.close()
            raise
        before, self._executables = self._executables, prepared.protected
        self._looked_at = frozenset({*prepared.candidate.executables.names, *prepared.protected.names})
        self.enforcer.protected = prepared.protected.names
        self._verdicts.protect_only(prepared.protected.names)
        self._levers.bindings.look_only_at(self._looked_at)
        before.close()
        for why in prepared.protected.unresolved.values():
            _log.warning("enforcement.protected: %s", why)
        self._breakers.rearm(None)

    def tick(self) -> list[Told]:
        """Once a second: end what is over; returns what happened since the last time."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._expire(now)
        self.enforcer.tick(now)
        self._breakers.tick()
        host = self._verdicts.host()
        if host is not None and host.until <= now:
            self._verdicts.free_host()
            _log.info("the verdict of %s on the whole host is over", self._rules.name(host.rule))
        if (counts := self._levers.maps.get("containment_counts")) is not None:
            tell_refusals(counts, self._rules, self._pending)
        self.guarding.tick()
        return self._pending.take()

    def _expire(self, now: int) -> None:
        """Take back poison that is over; programs look at its time themselves, so that nothing hurries.

        Somebody may have thousands of processes poisoned: to look at them takes a tenth of the time, not all of it.
        """
        if now < self._expire_from:
            return
        began = time.monotonic_ns()
        # All of them first: whoever removes the one that he is at begins to walk through a map anew.
        for verdict in [each for each in self._verdicts.poisoned() if each.until <= now]:
            self._verdicts.expire(verdict)
        self._expire_from = now + _REST * (time.monotonic_ns() - began)

    def ended(self, process: Key) -> None:
        """All of a process has ended."""
        try:
            self.enforcer.ended(process)
        except KernelError as error:
            _log.error("what was decided about a process that ended stays for now: %s", error)

    def _close_executables(self) -> None:
        self._executables.close()

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        poisoned = sorted(self._verdicts.poisoned(), key=lambda each: (each.until, each.process))
        host = self._verdicts.host()
        return {
            "modes": {name: str(mode) for name, mode in sorted(self._modes.items())},
            **self.guarding.status(),
            "guarded_operations": {"refused": self.enforcer.contained, "of": len(OPERATIONS)},
            "poisoned": [self._shown(each, now) for each in poisoned[:_SHOWN]],
            "poisoned_count": len(poisoned),
            "poison_left_out": self._verdicts.left_out(),
            "kernel_tier": self.tier.status(),
            "bound_count": sum(1 for _ in self._verdicts.bound()),
            "host": None if host is None else {"rule": self._rules.name(host.rule), "left_s": _left(host, now)},
            "breakers": self._breakers.status(),
        }

    def _say_what_holds(self, contained: list[ProbeReport]) -> None:
        """Once, not for each operation."""
        if not contained:
            sample = next(each for each in self._probes.reports if each.plugin == containment.NAME)
            _log.error("poison cannot hold here: no guarded operation can be refused (%s)", sample.reason)
        elif len(contained) < len(OPERATIONS):
            _log.warning(
                "poison holds for %d of %d guarded operations; see krie doctor", len(contained), len(OPERATIONS)
            )

    def _decided(self, event: Event) -> frozenset[str]:
        return self.tier.decided(event, self._types[event.kind].name, self._rules.name(event.verdict))

    def _tell_gave_way(self, verdict: Verdict) -> None:
        tgid = verdict.process.tgid
        _log.warning("process %d is poisoned no longer: it made room for another user's", tgid)
        what = f"room for another user's: tgid {tgid}"
        self._pending.tell(Cleared, processes=1, verdicts=0, by_tgid=self._agent_tgid, by_uid=0, what=what)

    def _shown(self, verdict: Verdict, now: int) -> dict[str, Any]:
        try:
            comm = procfs().read(f"{verdict.process.tgid}/comm").decode(errors="replace").rstrip("\n")
        except OSError:
            comm = ""
        return {
            "tgid": verdict.process.tgid,
            "start_time": verdict.process.start_time,
            "comm": comm,
            "rule": self._rules.name(verdict.rule),
            "left_s": _left(verdict, now),
            "share": verdict.share,
        }


def _left(verdict: Verdict, now: int) -> int:
    return max(0, (verdict.until - now) // _SECOND)


def wanted(config: Config) -> bool:
    """Whether any plugin is to enforce."""
    return any(each.get("mode") == "enforce" for each in config.plugins.values())
