"""The agent: wires everything with one ExitStack, so that the order of start and stop can be read here.

Run as `python -m krie.agent`; `krie run` does so. It imports neither click nor rich, and maps no LLVM.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import select
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..config import Config, load_config
from ..decision import Action
from ..enforce.standing import Standing
from ..errors import ExitCode, KernelError, PluginError
from ..events.agent import AGENT_EVENTS, OwnEvents
from ..events.enforcement import ENFORCEMENT_EVENTS
from ..kernel.cgroups import Cgroups
from ..kernel.maps import Map
from ..kernel.mounts import mounted
from ..kernel.ring import Ring
from ..kernel.symbols import read_once
from ..output import complain_of, log_to_stderr, visible_streams
from ..plugin.report import ProbeReport
from ..processes.enrich import Enricher, host
from ..processes.principal import Principals
from ..processes.table import ProcessTable
from ..services.desk import Desk
from ..timer import Timer
from ..trusted_code import only_trusted_imports
from .budget import Budgets
from .bus import Bus
from .control import Control
from .diagnosis import diagnose
from .endurance import Endurance
from .enforcement import Enforcing, wanted
from .faults import Faults
from .health import Losses
from .inbox import Inbox
from .input_health import InputHealth
from .journal import Changes, open_writers
from .loading import LoadSensors, load_sensors
from .lock import hold
from .missed import MissedRuns
from .policy_files import PolicyFiles
from .policy_in_force import PolicyInForce, first_policy
from .presence import Presence, Pulse
from .reattach import reattach
from .reload import Reload
from .reports import Reports
from .selection import Selection
from .signals import Signals
from .status import Status

_TICK_S = 1.0
_LOADING_S = 0.05
_LOOK_AGAIN_S = 2.0
"""When probes that were silenced are tried again; later and later, up to `agent.canary_interval_s`."""
_log = logging.getLogger("krie")


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
        self._silent_until, self._look_again_s = 0.0, _LOOK_AGAIN_S
        self._faults = Faults()
        self._inbox: Inbox
        stack.callback(os.close, hold(Path(config.agent.run_dir)))
        self._presence = Presence(Path(config.agent.state_dir))
        self._armed = armed = load(config, place, self._faults.note, stack, contain=wanted(config))
        table = ProcessTable(config.agent.processes, armed.bindings.identity)
        cgroup2 = next((each.point for each in mounted("cgroup2") if each.root == "/"), None)
        cgroups = Cgroups(cgroup2)
        stack.callback(cgroups.close)
        self._enricher = Enricher(armed.types, table, cgroups, armed.plugins.enrichers())
        principal_of = Principals(table, time.time_ns())
        self._enforcing = Enforcing(config, armed, stack, principal_of=principal_of)
        numbers = lambda: self._enforcing.tier.numbers  # noqa: E731
        late = lambda: self._inbox.hold()  # noqa: E731, PLW0108 - there is none yet
        self._desk = Desk(config)
        stack.callback(self._desk.close)
        self._policy_files = PolicyFiles(config, armed, self._enricher, numbers, late, self._desk.source)
        stack.callback(self._policy_files.close)
        with armed.timings.phase("policy"):
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
        )
        self._bus.host = host()
        if self._desk.logs_decisions:
            self._bus.log_decision = self._desk.decided
        self._own = OwnEvents(armed.agent, armed.types)
        self._reports = Reports(self._bus, armed, self._own)
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
        self._reload = Reload(self._policy_files, self._in_force, self._inbox, self._desk, self._reports, self._health)
        maps_of = lambda name: armed.maps.starting_with(f"{name}_")  # noqa: E731
        with armed.timings.phase("baselines"), read_once():
            armed.plugins.attached(maps_of, armed.memory, armed.roaming.traps)
        stack.callback(armed.plugins.detaching)
        with armed.timings.phase("process table"):
            armed.bindings.note_all()
        armed.arm()
        with armed.timings.phase("process table"):
            table.seed()  # after arming: what starts meanwhile is told by a record
        self._reports.gap(self._presence)
        self._note_presence()
        self._tell_probes(armed.probes.reports)
        self._require(armed.probes.reports)
        with armed.timings.phase("policy"):
            self._enforcing.start(first)
        self._status = Status(
            armed,
            self._bus,
            self._losses,
            self._missed,
            self._enforcing,
            self._in_force.status,
            lambda: self._inbox.backlog,
            self._diagnosis,
        )
        self._control = Control(Path(config.agent.run_dir), self._status.answer)
        stack.callback(self._control.close)
        self._tick()
        self._endurance, self._standing = Endurance(), Standing()
        self._pulse = Pulse()  # until here it waited long, for the compiler and the kernel
        armed.timings.stop()
        self._reports.started(self._in_force.policy, int(1000 * (time.monotonic() - started)), len(table))
        self._health.update()

    def run(self, duration_s: float | None) -> str:
        """Take events until the end; returns the reason for it."""
        self._signals.hear_ends()
        self._armed.plugins.watch()
        poll = select.epoll()
        self._ring.wait_on(poll)
        self._control.wait_on(poll)
        self._journal_changes.wait_on(poll)
        self._desk.start(poll)
        now = time.monotonic()
        end = now + duration_s if duration_s is not None else float("inf")
        agent = self._config.agent
        work: tuple[tuple[str, float, Callable[[], None]], ...] = (
            ("look", _TICK_S, self._beat),
            ("policy files", self._config.policy.check_interval_s, self._reload.look_for_changes),
            ("canaries", agent.canary_interval_s, self._check_probes),
            ("scan", agent.scan_interval_s, self._scan),
            ("traps", agent.roaming_interval_s, self._roam),
        )
        timers = tuple(Timer(interval_s, partial(self._endurance.run, name, act)) for name, interval_s, act in work)
        while not self._signals.stop_reason:
            due = min(end, *(each.due for each in timers))
            if self._reload.loading:
                due = min(due, time.monotonic() + _LOADING_S)
            if self._inbox.waiting:
                due = 0.0
            poll.poll(max(0.0, due - time.monotonic()))
            self._endurance.run("records", self._inbox.drain)
            self._endurance.run("control", self._control.serve)
            self._tell_journal()
            self._endurance.run("services", self._reload.hear_services)
            now = time.monotonic()
            for timer in timers:
                timer.run_if_due(now)
            if self._reload.loading:
                self._endurance.run("reload", self._reload.finish)
            elif self._signals.take_reload():
                self._writers.reopen()
                self._desk.try_again()
                self._endurance.run("reload", self._reload.begin)
            if now >= end:
                self._signals.stop_reason = f"{duration_s:g} s are over"
        return self._signals.stop_reason

    def finish(self) -> None:
        """Cease to see, take what is still in the ring, and say so in the journal."""
        self._endurance.run("stop", self._enforcing.stop)
        self._endurance.run("stop", lambda: self._armed.arm(armed=False))
        for _ in range(2):  # the second look finds what the first one saw as written, and never came
            while self._inbox.drain():
                pass
            self._tick()
        self._tell_missed()
        self._tell_journal()
        self._reports.stopped(self._signals.stop_reason or "an error", self._losses.total, self._in_force.remembered)
        if self._signals.stop_reason:
            self._note_presence(clean=True)
        for writer in self._writers.all:
            writer.close()

    def _tell_probes(self, changed: Iterable[ProbeReport]) -> None:
        for report in changed:
            self._reports.probe(report, self._in_force.policy)

    def _require(self, reports: Iterable[ProbeReport]) -> None:
        """At the start only: an agent that ended because its probes were silenced would finish the attacker's work."""
        for report in reports:
            required = report.probe.required or report.plugin in self._armed.plugins.required
            if required and report.state in ("missing", "silent"):
                problem = f"probe {report.probe.name} is {report.state} and required: {report.reason}"
                raise PluginError(report.plugin, problem)

    def _beat(self) -> None:
        continued = self._signals.take_continued()
        for attempt in self._standing.look():  # first: all else may need what was taken
            self._reports.put_right(attempt)
        for failing in self._endurance.look():
            self._reports.trouble(failing)
        held_up_s = self._pulse.beat(continued=continued)
        if held_up_s and not self._enforcing.hears_silence:  # else that timer tells it, and by what
            self._reports.held_up(held_up_s)
        self._control.resume()
        self._tick()
        if self._silent_until and time.monotonic() >= self._silent_until:
            self._check_probes()

    def _tick(self) -> None:
        overflowed = sum(each.overflowed for each in self._writers.all)
        failed = sum(each.failed for each in self._writers.all)
        bus = self._bus
        lost = list(
            self._losses.look(bus.received, bus.undecodable, overflowed, failed, drained=not self._inbox.backlog)
        )
        for loss in lost:
            self._reports.loss(loss)
        for held in self._budgets.look():
            self._reports.held(held)
        faults = self._faults.take()
        for fault in faults:
            self._reports.plugin(fault)
        failed_policy = self._in_force.tell_failures()
        other_engine = self._in_force.tell_engine()
        services = self._tell_services()
        for event, fields in self._enforcing.tick():
            self._reports.tell(event, **fields)
        for found in self._armed.plugins.poll(self._own.complete):
            self._bus.handle(found)
        self._scan_what_is_put_right()
        for event, fields in self._armed.ground.tick():
            self._reports.tell(event, **fields)
        self._status.note()
        if lost or faults or failed_policy or other_engine or services:
            self._health.update()

    def _tell_journal(self) -> None:
        for change in self._journal_changes.take():
            self._reports.journal(change)

    def _tell_services(self) -> bool:
        self._desk.tick()
        notes = self._desk.notes()
        for note in notes:
            if note.state == "refused":
                self._reports.policy_refused(self._in_force.policy, note.reason)
            else:
                self._reports.service(note)
        return bool(notes)

    def _diagnosis(self) -> dict[str, Any]:
        return diagnose(
            self._armed,
            self._in_force.policy.rules,
            self._policy_files.problems,
            agent=os.getpid(),
            revision=self._in_force.policy.revision,
            engine=self._in_force.engine(),
        ).to_json()

    def _check_probes(self) -> None:
        self._tell_probes(self._armed.probes.check())
        self._look_again_if_silent()
        self._armed.plugins.checked(self._armed.probes.reports, self._tell_missed())
        self._health.update()
        self._note_presence()

    def _look_again_if_silent(self) -> None:
        """Probes that were silenced are armed again if the agent can, and looked at soon."""
        if not any(each.state == "silent" for each in self._armed.probes.reports):
            self._silent_until, self._look_again_s = 0.0, _LOOK_AGAIN_S
            return
        for probe, why in reattach(self._armed.probes.reports, self._armed.loaded).items():
            _log.error("probe %s could not be attached again: %s", probe, why)
        self._enforcing.rearm()
        self._silent_until = time.monotonic() + self._look_again_s
        self._look_again_s = min(2 * self._look_again_s, self._config.agent.canary_interval_s)

    def _tell_missed(self) -> frozenset[str]:
        """Returns the labels of programs of which runs were left out since the last look."""
        try:
            found = list(self._missed.look())
        except KernelError as error:
            _log.error("runs that the kernel left out are not counted: %s", error)
            return frozenset()
        for missed in found:
            self._reports.missed(missed)
        return frozenset(each.program for each in found)

    def _note_presence(self, *, clean: bool = False) -> None:
        try:
            self._presence.note(clean=clean)
        except OSError as error:
            _log.error("agent.state_dir: the next agent will not know that this one lived: %s", error)

    def _roam(self) -> None:
        self._scan_what_is_put_right()
        self._tell_stuck(self._armed.roaming.move())

    def _tell_stuck(self, stuck: Mapping[str, str]) -> None:
        for probe, why in stuck.items():
            _log.error("probe %s stays where it was: %s", probe, why)

    def _scan_what_is_put_right(self) -> None:
        """Let plugins see, and rules decide, what a variable holds before the agent puts it right for its own sake."""
        if self._armed.ground.turned_off():
            self._scan()

    def _scan(self) -> None:
        for event in self._armed.plugins.scan(self._own.complete):
            self._bus.handle(event)


def main(arguments: list[str] | None = None) -> int:
    """Run an agent; returns its exit code."""
    parser = argparse.ArgumentParser(prog="krie-agent", description="The KRIe agent; `krie run` starts it.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--duration", type=float, default=None, metavar="S")
    parser.add_argument("--stdout", action="store_true", help="write the journal's lines to standard output, too")
    parser.add_argument("--quiet", action="store_true", help="only say what is wrong")
    with visible_streams():
        options = parser.parse_args(arguments)
        log_to_stderr(logging.WARNING if options.quiet else logging.INFO)
        return _run(options)


def _own_output() -> int:
    """Have standard output for the journal alone; returns the descriptor. What plugins print goes to standard error."""
    own = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    os.dup2(2, 1)
    return own


def _run(options: argparse.Namespace) -> int:
    output = _own_output() if options.stdout else None
    try:
        config = load_config(options.config)
        with ExitStack() as stack:
            stack.enter_context(only_trusted_imports())
            agent = Agent(config, str(options.config), stack, output=output)
            try:
                agent.run(options.duration)
            finally:
                agent.finish()
    except Exception as error:
        return complain_of(error)
    return ExitCode.OK
