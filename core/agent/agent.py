"""The agent: wires everything with one ExitStack, so that the order of start and stop can be read here."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ..config import Config
from ..decision import Action
from ..enforce.guard_sensor import BEAT_INTERVAL_S
from ..events.agent import AGENT_EVENTS, OwnEvents
from ..events.enforcement import ENFORCEMENT_EVENTS
from ..kernel.cgroups import Cgroups
from ..kernel.maps import Map
from ..kernel.mounts import cgroup2
from ..kernel.ring import Ring
from ..kernel.symbols import read_once
from ..kernel_files import tell_what_can_be_covered
from ..processes.enrich import Enricher, host
from ..processes.principal import Principals
from ..processes.table import ProcessTable
from ..services.desk import Desk
from .budget import Budgets
from .bus import Bus
from .control import Control
from .diagnosis import diagnose_running
from .endurance import Endurance
from .enforcement import Enforcing, wanted
from .faults import Faults
from .health import Losses
from .inbox import Inbox
from .input_health import InputHealth
from .journal import Changes, open_writers
from .loading import LoadSensors, load_sensors
from .lock import hold
from .loop import Loop
from .missed import MissedRuns
from .news import News
from .policy_files import PolicyFiles
from .policy_in_force import PolicyInForce, first_policy
from .presence import Presence
from .probe_watch import ProbeWatch
from .reload import Reload
from .reports import Reports
from .scans import Scans
from .selection import Selection
from .signals import Signals
from .status import Status
from .unseen import Unseen
from .upkeep import Upkeep


class Agent:
    """One agent, armed. `run` returns when a signal or the duration ends it."""

    def __init__(
        self,
        config: Config,
        place: str,
        stack: ExitStack,
        *,
        output: int | None,
        load: LoadSensors = load_sensors,
        new_ring: Callable[[Map], Ring] = Ring,
    ) -> None:
        """Arm. Raises `KrieError`; whatever was set up by then is undone by `stack`.

        `output`: descriptor of standard output, where the journal's lines go, too.
        """
        started = time.monotonic()
        self._config = config
        self._signals = Signals()
        self._faults = Faults()
        self._inbox: Inbox
        if (tree := cgroup2()) is not None:
            stack.callback(tree.close)
        tell_what_can_be_covered(tree)
        stack.callback(os.close, hold(Path(config.agent.run_dir)))
        self._presence = Presence(Path(config.agent.state_dir))
        self._attached = armed = load(config, place, self._faults.note, stack, contain=wanted(config))
        table = ProcessTable(config.agent.processes, armed.bindings.identity)
        cgroups = Cgroups(tree)
        stack.callback(cgroups.close)
        self._enricher = Enricher(armed.types, table, cgroups, armed.plugins.enrichers())
        principal_of = Principals(table, time.time_ns())
        self._enforcing = Enforcing(
            config,
            armed.levers(),
            armed.sending,
            armed.sensors,
            armed.types,
            armed.plugins,
            armed.probes,
            stack,
            agent_tgid=armed.agent.tgid,
            principal_of=principal_of,
        )
        numbers = lambda: self._enforcing.tier.numbers  # noqa: E731
        late = lambda: self._inbox.hold()  # noqa: E731, PLW0108 - there is none yet
        self._desk = Desk(config)
        stack.callback(self._desk.close)
        self._policy_files = PolicyFiles(
            config,
            armed.plugins,
            armed.types,
            armed.probes,
            armed.inspector.identify,
            self._enricher,
            numbers,
            late,
            self._desk.bundles.source,
        )
        stack.callback(self._policy_files.close)
        with armed.facts.timings.phase("policy"):
            first = first_policy(self._policy_files, self._desk)
            self._policy_files.adopt(first)
        self._journal_changes = Changes()
        stack.callback(self._journal_changes.close)
        gone = (lambda: self._signals.stop("the reader of standard output has gone")) if output is not None else None
        self._writers = open_writers(config.journal, gone, self._journal_changes.put, output or 1)
        for each in self._writers.all:
            stack.callback(each.close)
        own = (*AGENT_EVENTS, *ENFORCEMENT_EVENTS)
        least = Action[config.journal.min_action.upper()]
        self._selection = Selection(least, [each.KIND for each in own], whose=principal_of)
        self._bus = Bus(
            armed.types,
            table,
            self._enricher,
            first.policy,
            [each.write for each in self._writers.everything],
            armed.plugins.observers(),
            self._enforcing.enforcer,
            self._selection,
            [each.write for each in self._writers.important],
            self._enforcing.ended,
        )
        self._bus.host = host()
        if self._desk.logs_decisions:
            self._bus.log_decision = self._desk.decided
        self._own = OwnEvents(armed.agent, armed.types)
        self._reports = Reports(self._bus, self._own, armed.probes, armed.types)
        self._losses = Losses(armed.types, armed.loaded.loaded.kinds, armed.maps["krie_counts"])
        self._missed = MissedRuns(armed.programs())
        self._health = InputHealth(
            self._bus, self._losses, self._missed, armed.probes, armed.plugins, self._desk, self._policy_files.opa
        )
        self._budgets = Budgets(armed.types, armed.loaded.loaded.kinds, armed.maps)
        self._in_force = PolicyInForce(
            first,
            self._policy_files,
            self._enforcing,
            self._bus,
            self._selection,
            self._budgets,
            self._desk,
            self._reports,
            self._health,
        )
        self._budgets.limit(config.agent.user_burst, config.agent.user_rate)
        self._ring = new_ring(armed.maps["krie_ring"])
        stack.callback(self._ring.close)
        self._inbox = Inbox(self._ring, self._bus.take, settle=self._bus.settle)
        self._unseen = Unseen(
            self._losses, self._budgets, self._missed, self._bus, self._inbox, self._writers, self._reports
        )
        self._reload = Reload(self._policy_files, self._in_force, self._inbox, self._desk, self._reports, self._health)
        maps_of = lambda name: armed.maps.starting_with(f"{name}_")  # noqa: E731
        with armed.facts.timings.phase("baselines"), read_once():
            armed.plugins.attached(maps_of, armed.memory, armed.roaming.traps)
        stack.callback(armed.plugins.detaching)
        with armed.facts.timings.phase("process table"):
            armed.bindings.note_all()
        armed.sending.start()
        with armed.facts.timings.phase("process table"):
            table.seed()  # after arming: what starts meanwhile is told by a record
        self._reports.gap(self._presence)
        self._probes = ProbeWatch(
            armed.probes,
            armed.loaded,
            armed.plugins,
            armed.ground,
            self._enforcing.guarding,
            self._in_force,
            self._unseen,
            self._reports,
            self._health,
            config.agent.canary_interval_s,
        )
        self._probes.begin()
        with armed.facts.timings.phase("policy"):
            self._enforcing.start(first)
        self._status = Status(
            armed.facts,
            armed.plugins,
            armed.probes,
            self._bus,
            self._losses,
            self._missed,
            self._enforcing,
            self._in_force.status,
            lambda: self._inbox.backlog,
            lambda: diagnose_running(armed, self._in_force, self._policy_files.problems).to_json(),
            lambda: table.evicted,
        )
        self._control = Control(Path(config.agent.run_dir), self._status.answer)
        stack.callback(self._control.close)
        self._scans = Scans(armed.plugins, self._own, self._bus, armed.ground)
        self._news = News(
            self._unseen,
            self._faults,
            self._in_force,
            self._desk,
            self._enforcing,
            self._scans,
            armed.ground,
            self._status,
            self._reports,
            self._health,
        )
        self._news.tell()
        self._endurance = Endurance()
        self._upkeep = Upkeep(
            self._signals,
            self._endurance,
            self._control,
            self._news,
            self._probes,
            self._presence,
            self._scans,
            armed.roaming,
            self._enforcing.guarding,
            self._reports,
        )
        self._loop = Loop(
            self._signals,
            self._endurance,
            self._inbox,
            self._control,
            self._reload,
            self._tell_journal,
            self._try_again,
        )
        armed.facts.timings.stop()
        self._processes, self._armed_ms = len(table), int(1000 * (time.monotonic() - started))

    def begin(self) -> None:
        """Tell that it is armed. Who asks it to end from then on finds that it ended by itself."""
        self._signals.hear_ends()
        self._presence.keep()
        facts, policy = self._attached.facts, self._in_force.policy
        self._reports.started(facts, policy, self._armed_ms, self._processes)
        self._health.update()

    def run(self, duration_s: float | None) -> str:
        """Take events until the end; returns the reason for it."""
        self._attached.plugins.watch()
        poll = select.epoll()
        self._ring.wait_on(poll)
        self._control.wait_on(poll)
        self._journal_changes.wait_on(poll)
        self._desk.start(poll)
        agent = self._config.agent
        work = (
            ("look", BEAT_INTERVAL_S, self._upkeep.beat),
            ("policy files", self._config.policy.check_interval_s, self._reload.look_for_changes),
            ("canaries", agent.canary_interval_s, self._upkeep.check),
            ("scan", agent.scan_interval_s, self._scans.scan),
            ("traps", agent.roaming_interval_s, self._upkeep.roam),
        )
        return self._loop.run(poll, work, duration_s)

    def finish(self) -> None:
        """Cease to see, take what is still in the ring, and say so in the journal."""
        self._endurance.run("stop", self._enforcing.stop)
        self._endurance.run("stop", self._attached.sending.stop)
        for _ in range(2):  # the second look finds what the first one saw as written, and never came
            while self._inbox.drain():
                pass
            self._news.tell()
        self._unseen.tell_runs()
        self._tell_journal()
        self._reports.stopped(self._signals.stop_reason or "an error", self._losses.total, self._in_force.remembered)
        if self._signals.stop_reason:
            self._presence.keep(clean=True)
        for writer in self._writers.all:
            writer.close()

    def _try_again(self) -> None:
        self._writers.reopen()
        self._desk.try_again()

    def _tell_journal(self) -> None:
        for change in self._journal_changes.take():
            self._reports.journal(change)
