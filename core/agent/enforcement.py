"""Everything about enforcement that lives as long as the agent: built here, looked after once a second, asked and
cleared by administrators. What a decision leads to is in `krie.enforce.enforcer`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import Config
from ..decision import Mode
from ..enforce import containment
from ..enforce.breaker import CircuitBreaker
from ..enforce.containment import take_refusals
from ..enforce.enforcer import Ability, Enforcer, RuleNumbers
from ..enforce.guard_sensor import NAME as GUARD
from ..enforce.guard_sensor import missing as missing_hooks
from ..enforce.self_defence import Guard
from ..enforce.verdicts import Verdict
from ..errors import KernelError, PolicyError
from ..events.core_maps import Flags
from ..events.enforcement import Breaker, Cleared, Contained, Gap, Guarded
from ..events.event import Event
from ..events.identity import Identity, Key
from ..events.operations import GUARDED, OPERATIONS, SEEN
from ..kernel.maps import Map
from ..plugin.probe import Enforcement as Can
from ..plugin.report import ProbeReport
from ..processes.executables import Executables, resolve
from ..processes.peer import Peer
from ..processes.principal import PrincipalOf
from ..tier.candidate import Candidate
from ..tier.kernel_tables import KernelTables
from . import clearing
from .heart import Heart
from .in_force import Prepared
from .journal import files_of
from .kernel_tier import KernelTier, enforced_kinds
from .loading import Armed

_log = logging.getLogger("krie")
_SECOND = 1_000_000_000
_SHOWN = 500
_USED = tuple(map(Path, ("/proc", "/sys", "/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing")))
"""What the agent reads of the kernel, where it is mounted."""
Told = tuple[type[Event], dict[str, object]]
"""An event of the agent's own: its class, and its fields by name."""


class Enforcing:
    """The verdict tables with everything that changes them."""

    def __init__(
        self,
        config: Config,
        armed: Armed,
        stack: ExitStack,
        tables_of: Callable[[Mapping[str, Map], Sequence[int]], KernelTables] = KernelTables,
        new_guard: Callable[[], Guard] = Guard,
        *,
        principal_of: PrincipalOf,
    ) -> None:
        """Touch nothing yet; `stack` lets go of files. `tables_of`: the tables in these maps, for these kinds.

        `principal_of`: whom the breakers count for an event.
        """
        self._config, self._armed = config.enforcement, armed
        self._folders = {Path(config.agent.state_dir): True, Path(config.agent.run_dir): False}
        self._files = files_of(config.journal)
        self._used = (*{each.parent for each in self._files}, *_USED, Path(__file__).parents[1])
        self._verdicts = armed.verdicts
        self._rules = RuleNumbers()
        self._pending: list[Told] = []
        period_ns = self._config.breaker_period_s * _SECOND
        self._breaker = CircuitBreaker(self._config.breaker_processes, period_ns, self._tripped)
        self._modes = armed.modes
        self._enforces = any(mode is Mode.ENFORCE for mode in self._modes.values())
        self._abilities: dict[int, Ability] = {}
        tables = tables_of(armed.maps, armed.loaded.loaded.kinds)
        self.tier = KernelTier(
            enforced_kinds(armed.sensors, armed.modes), tables, self._rules.number, self._config.poison_s
        )
        self.enforcer = Enforcer(
            self._config,
            self._verdicts,
            self._breaker,
            self._rules,
            armed.agent.tgid,
            self._ability,
            self._decided,
            principal_of,
        )
        self._executables = Executables({}, {}, ())
        self._looked_at: frozenset[Identity] = frozenset()
        stack.callback(self._close_executables)
        self._guard = new_guard()
        stack.callback(self._guard.close)
        self._kprobes_off = False
        self._watching = False
        self._heart: Heart | None = None

    def start(self, first: Candidate) -> None:
        """Let programs act. Call it when the agent is armed and its probes were checked."""
        self.take_over(self.prepare(first))
        self._watching = True
        if not self._enforces:
            return
        contained = containment.guarded(self._armed.probes.reports)
        self.enforcer.contained = len(contained)
        self._say_what_holds(contained)
        self._verdicts.set_poison_time(self._config.poison_s * _SECOND)
        sensors = self._armed.loaded.loaded.sensors
        self._verdicts.enforce((self._modes.get(each) is Mode.ENFORCE) for each in sensors)
        if self._config.guard and contained:
            own = self._armed.maps
            self._guard.prepare(
                own.starting_with(f"{containment.NAME}_"), self._armed.inspector.identify, self._folders, self._used
            )
            self._guard.look_after(self._files)
            self._heart = Heart(own["guard_heart"], self._armed.beat)
            self._heart.beat()
            self._verdicts.set_flags(self._verdicts.flags() | Flags.GUARD)
            for each in missing_hooks(self._armed.probes.reports):
                _log.warning("the guard lacks %s: %s", each.probe.name, each.reason)

    def stop(self) -> None:
        """Let programs act no more: what was decided ends with the agent, as it would by SIGKILL."""
        self._heart, self._watching = None, False
        self._verdicts.enforce(False for _ in self._armed.loaded.loaded.sensors)
        self._verdicts.set_flags(Flags(0))
        self.tier.remove()
        for each in (*self._verdicts.poisoned(), *self._verdicts.bound()):
            self._verdicts.clear(each)

    def prepare(self, candidate: Candidate) -> Prepared:
        """Make its tables and look at the protected programs anew, next to what is in force; `take_over` must follow.

        Raises `KernelError`, `PolicyError`; then nothing has changed.
        """
        paths = {path: path for path in self._config.protected}
        with ExitStack() as undo:
            protected = resolve(paths, self._armed.inspector.identify)
            undo.callback(protected.close)
            part = self.tier.prepare(candidate.tiers, candidate.numbers)
            undo.callback(self.tier.drop, part)
            # These are protected besides those in force until then.
            self._verdicts.protect(protected.names)
            undo.callback(self._verdicts.protect_only, self._executables.names)
            self._armed.bindings.look_at({*candidate.executables.names, *protected.names})
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
            self._armed.bindings.look_only_at(self._looked_at)
            prepared.protected.close()
            raise
        before, self._executables = self._executables, prepared.protected
        self._looked_at = frozenset({*prepared.candidate.executables.names, *prepared.protected.names})
        self.enforcer.protected = prepared.protected.names
        self._verdicts.protect_only(prepared.protected.names)
        self._armed.bindings.look_only_at(self._looked_at)
        before.close()
        for why in prepared.protected.unresolved.values():
            _log.warning("enforcement.protected: %s", why)
        self._rearm(None)

    def tick(self) -> list[Told]:
        """Once a second: end what is over; returns what happened since the last time."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for verdict in (*self._verdicts.poisoned(), *self._verdicts.bound()):
            if verdict.until <= now:
                self._verdicts.clear(verdict)
        host = self._verdicts.host()
        if host is not None and host.until <= now:
            self._verdicts.free_host()
            _log.info("the verdict of %s on the whole host is over", self._rules.name(host.rule))
        if (counts := self._armed.maps.get("containment_counts")) is not None:
            for each in take_refusals(counts):
                self._tell_refusals(each.process, each.operation, each.count, each.rule)
        off = self._guard.kprobes_off()
        if off and not self._kprobes_off:
            _log.error("all kprobes of this machine are disarmed: probes by kprobe see nothing")
            self._tell_seen("kprobes_off")
        self._kprobes_off = off
        if self._heart is not None:
            self._keep_guard(self._heart)
        if self._watching:
            self._keep_armed()
        pending, self._pending = self._pending, []
        return pending

    @property
    def hears_silence(self) -> bool:
        """Whether a timer in the kernel sees what keeps the agent from running."""
        clock = (each.state for each in self._armed.probes.reports if each.name == f"{GUARD}.silence")
        return self._heart is not None and next(clock, "missing") != "missing"

    def rearm(self) -> None:
        """Of what silences probes, put right what the agent can."""
        if self._heart is None:
            return
        if self._guard.kprobes_off() and self._guard.arm_kprobes():
            _log.warning("kprobes were turned on again")
        self._guard.look_at_objects()  # what was attached again is another link

    def _keep_guard(self, heart: Heart) -> None:
        """Beat, and hold the guard up: what it is made of may have been changed by a way that nobody foresaw."""
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        silence = heart.beat()
        self._forget_cgroups(before)
        if silence is not None:
            _log.warning("the agent was %s: nobody watched for %.1f s", silence.state, silence.seconds)
            since = int(time.time() - silence.seconds)
            self._tell(Gap, tgid_before=os.getpid(), last_seen_s=since, gap_s=int(silence.seconds), state=silence.state)
        if Flags.GUARD not in self._verdicts.flags():
            self._verdicts.set_flags(self._verdicts.flags() | Flags.GUARD)
            _log.error("somebody turned the guard off; it is on again")
            self._tell_seen("disarmed")
        self._guard.look_after(self._files)

    def _keep_armed(self) -> None:
        """Canaries arrive without this, and records do not. Whatever the mode: nothing guards it while all observe."""
        if not self._armed.is_armed():
            self._armed.arm()
            _log.error("somebody disarmed the programs in the kernel; they are armed again")
            self._tell_seen("disarmed")

    def _forget_cgroups(self, before: int) -> None:
        """Where the agent was, and is not: the kernel may give the address of such a cgroup to another one."""
        cgroups = self._armed.maps["containment_cgroups"]
        for node, seen in list(cgroups.items()):
            if int.from_bytes(seen, "little") < before:
                cgroups.remove(node)

    def _tell_seen(self, attempt: str) -> None:
        """Of what was found without who did it."""
        self._tell(Guarded, stranger_tgid=0, stranger_start_time=0, count=1, attempt=attempt)

    def _tell(self, event: type[Event], **fields: object) -> None:
        # Not journaled at once, since this may be within another event.
        self._pending.append((event, fields))

    def _close_executables(self) -> None:
        self._executables.close()

    def status(self) -> dict[str, Any]:
        """For `krie status`."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        poisoned = sorted(self._verdicts.poisoned(), key=lambda each: (each.until, each.process))
        host = self._verdicts.host()
        return {
            "modes": {name: str(mode) for name, mode in sorted(self._modes.items())},
            "guard": Flags.GUARD in self._verdicts.flags(),
            "objects": [asdict(each) for each in self._guard.objects],
            "guarded_operations": {"refused": self.enforcer.contained, "of": len(OPERATIONS)},
            "poisoned": [self._shown(each, now) for each in poisoned[:_SHOWN]],
            "poisoned_count": len(poisoned),
            "kernel_tier": self.tier.status(),
            "bound_count": sum(1 for _ in self._verdicts.bound()),
            "host": None if host is None else {"rule": self._rules.name(host.rule), "left_s": _left(host, now)},
            "breakers": [
                {"rule": rule, "processes": hits, "of": self._config.breaker_processes, "tripped": tripped}
                for rule, (hits, tripped) in self._breaker.state().items()
            ],
        }

    def clear(self, tgid: int | None, rule: str | None, by: Peer, token: str = "") -> dict[str, Any]:
        """Take back what was decided about a process, by a rule, or all of it; returns how much that was.

        Raises `ValueError` where `by`, who gives this token, may not.
        """
        if self._enforces:
            try:
                clearing.require(self._config, by, token)
            except clearing.NotAllowed:
                _log.error("process %d may not clear", by.tgid)
                self._tell(Guarded, stranger_tgid=by.tgid, stranger_start_time=0, count=1, attempt="clear_refused")
                raise
        what = f"tgid {tgid}" if tgid is not None else f"rule {rule}" if rule is not None else "all"

        def meant(verdict: Verdict) -> bool:
            if tgid is not None:
                return verdict.process.tgid == tgid
            return rule is None or self._rules.name(verdict.rule) == rule

        poisoned = [each for each in self._verdicts.poisoned() if meant(each)]
        bound = [each for each in self._verdicts.bound() if meant(each)]
        for each in (*poisoned, *bound):
            self._verdicts.clear(each)
        host = self._verdicts.host()
        freed = host is not None and tgid is None and meant(host)
        if freed:
            self._verdicts.free_host()
        rearmed = [] if tgid is not None else self._rearm(rule)
        self._tell(
            Cleared, processes=len(poisoned), verdicts=len(bound) + freed, by_tgid=by.tgid, by_uid=by.uid, what=what
        )
        _log.warning("cleared by %d: %s (%d processes, %d verdicts)", by.tgid, what, len(poisoned), len(bound) + freed)
        return {"poisoned": len(poisoned), "verdicts": len(bound) + freed, "rearmed": rearmed}

    def _say_what_holds(self, contained: list[ProbeReport]) -> None:
        """Once, not for each operation."""
        if not contained:
            sample = next(each for each in self._armed.probes.reports if each.plugin == containment.NAME)
            _log.error("poison cannot hold here: no guarded operation can be refused (%s)", sample.reason)
        elif len(contained) < len(OPERATIONS):
            _log.warning(
                "poison holds for %d of %d guarded operations; see krie doctor", len(contained), len(OPERATIONS)
            )

    def _ability(self, kind: int) -> Ability:
        """Looked up once a kind and kept: neither modes nor the chosen alternatives change."""
        if kind not in self._abilities:
            owner = next(
                (each.name for each in self._armed.sensors if any(kind == event.KIND for event in each.events)), ""
            )
            probes = [
                each
                for each in self._armed.probes.reports
                if each.probe.event is not None and kind == each.probe.event.KIND
            ]
            refuses = any(Can.REFUSE in each.alternative.can for each in probes if each.alternative is not None)
            restore = None if probes else self._armed.plugins.restorer(owner)
            self._abilities[kind] = Ability(self._modes.get(owner, Mode.OBSERVE), refuses, restore)
        return self._abilities[kind]

    def _tripped(self, rule: str, processes: int) -> None:
        period_s = self._config.breaker_period_s
        _log.error(
            "rule %s hit %d users or programs in %d s: it only refuses now, until krie clear --rule %s or a reload",
            rule,
            processes,
            period_s,
            rule,
        )
        self._tell(Breaker, rule=rule, processes=processes, period_s=period_s, state="tripped")
        self._hold_back()

    def _rearm(self, rule: str | None) -> list[str]:
        rearmed = self._breaker.rearm(rule)
        for each in rearmed:
            _log.warning("rule %s is enforced in full again", each)
            self._tell(Breaker, rule=each, processes=0, period_s=self._config.breaker_period_s, state="rearmed")
        if rearmed:
            self._hold_back()
        return rearmed

    def _hold_back(self) -> None:
        """Let rules whose breaker is tripped only refuse in the kernel, too."""
        tripped = frozenset(rule for rule, (_, is_tripped) in self._breaker.state().items() if is_tripped)
        try:
            self.tier.only_refuse(tripped)
        except (KernelError, PolicyError) as error:
            _log.error("the kernel's tables stay as they are, tripped breakers included: %s", error)

    def _decided(self, event: Event) -> frozenset[str]:
        return self.tier.decided(event, self._armed.types[event.kind].name, self._rules.name(event.verdict))

    def _tell_refusals(self, process: Key, operation: int, count: int, rule: int) -> None:
        if operation in GUARDED:
            seen = "which nothing refuses" if GUARDED[operation] in SEEN else "and was refused"
            _log.error("process %d tried to harm the agent (%s), %s", process.tgid, GUARDED[operation], seen)
            self._tell(
                Guarded,
                stranger_tgid=process.tgid,
                stranger_start_time=process.start_time,
                count=count,
                attempt=GUARDED[operation],
            )
        elif operation in OPERATIONS:
            self._tell(
                Contained,
                contained_tgid=process.tgid,
                contained_start_time=process.start_time,
                count=count,
                operation=OPERATIONS[operation],
                rule=self._rules.name(rule),
            )

    def _shown(self, verdict: Verdict, now: int) -> dict[str, Any]:
        try:
            comm = Path(f"/proc/{verdict.process.tgid}/comm").read_text(errors="replace").rstrip("\n")
        except OSError:
            comm = ""
        return {
            "tgid": verdict.process.tgid,
            "start_time": verdict.process.start_time,
            "comm": comm,
            "rule": self._rules.name(verdict.rule),
            "left_s": _left(verdict, now),
        }


def _left(verdict: Verdict, now: int) -> int:
    return max(0, (verdict.until - now) // _SECOND)


def wanted(config: Config) -> bool:
    """Whether any plugin is to enforce."""
    return any(each.get("mode") == "enforce" for each in config.plugins.values())
