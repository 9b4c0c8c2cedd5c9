"""What works and what does not: probes proven alive by canaries, records lost, plugins degraded.

Its findings become events of `krie.events.agent` when they change, and `input.health` for policies.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from ..errors import KernelError
from ..events.core_maps import Count
from ..events.event import EventTypes
from ..events.numbers import LONG
from ..events.wire import Json
from ..kernel.maps import Map
from ..kernel.program import Program
from ..loader import alternatives
from ..plugin.probe import CannotProve, Sensor
from ..plugin.report import ProbeReport

_CPUS = 4
"""On as many, at most, a canary runs again that did not arrive."""
_PROVEN = ("alive", "attached")


@contextmanager
def _any_cpus() -> Iterator[Iterable[int]]:
    """Some of those that this thread may run on: it does on each one that is taken, and on all again at the end."""
    allowed = os.sched_getaffinity(0)

    def on_each() -> Iterator[int]:
        for cpu in random.sample(sorted(allowed), min(_CPUS, len(allowed))):
            with suppress(OSError):  # it was taken from us meanwhile: then wherever we are
                os.sched_setaffinity(0, {cpu})
            yield cpu

    try:
        yield on_each()
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)


class Canaries:
    """Runs canaries, and reads in the kernel whether they arrived."""

    def __init__(self, sensors: Iterable[Sensor], report: Callable[[str, Exception], None]) -> None:
        """`report` gets the name of a probe whose canary raised, and what it raised."""
        self._canaries = {
            f"{sensor.name}.{probe.name}": probe.canary
            for sensor in sensors
            for probe in sensor.probes
            if probe.canary is not None
        }
        self._report = report
        self.raised: dict[str, str] = {}
        """What canaries raised when they last ran, by probe."""
        self._unproven: dict[Callable[[], None], str] = {}

    def run(self, probes: Iterable[str], *, again: bool = False) -> None:
        """Run the canaries of these probes, each once even where several probes share one.

        `again`: what the others raised when they last ran is still so.
        """
        if not again:
            self.raised, self._unproven = {}, {}
        for canary, name in {self._canaries[each]: each for each in probes if each in self._canaries}.items():
            try:
                canary()
            except CannotProve as why:
                self._unproven[canary] = str(why)
            except Exception as error:  # a plugin's function: whatever it raises must not end the agent
                self.raised[name] = str(error)
                self._report(name, error)

    def unproven(self, probe: str) -> str:
        """Why the canary of a probe could prove nothing when it last ran; empty where it could."""
        return self._unproven.get(self._canaries[probe], "") if probe in self._canaries else ""


class ProbeHealth:
    """The probes that were attached."""

    def __init__(
        self,
        sensors: Iterable[Sensor],
        chosen: Mapping[str, str],
        reasons: Mapping[str, Mapping[str, str]],
        programs: tuple[str, ...],
        runs: Map | None,
        canaries: Canaries,
        watched: Callable[[], AbstractContextManager[None]] = nullcontext,
        attached: Collection[str] | None = None,
        left_out: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`runs`: the map that counts, by index in `programs`, the runs caused by the agent.

        `watched` is held while canaries run: programs that do nothing most of the time then count their runs.
        `attached`: labels of the programs that are attached; None: all of them. The others of an alternative in use are
        optional ones whose function this kernel lacks.

        `left_out`: how many runs of each program the kernel left out so far, by label, as far as it counts them;
        may raise `KernelError`.
        """
        self._watched, self._left_out = watched, left_out
        self._programs, self._runs, self._canaries = programs, runs, canaries
        self._attached = frozenset(programs if attached is None else attached)
        self._unheard: dict[str, list[Program]] = {}
        self.reports = [
            ProbeReport(
                sensor.name,
                probe,
                next(
                    (each for each in probe.alternatives if each.name == chosen.get(f"{sensor.name}.{probe.name}")),
                    None,
                ),
                "missing",
                reasons.get(f"{sensor.name}.{probe.name}", {}),
            )
            for sensor in sensors
            for probe in sensor.probes
        ]

    @property
    def raised(self) -> Mapping[str, str]:
        """What canaries raised at the last check, by probe."""
        return self._canaries.raised

    def check(self) -> list[ProbeReport]:
        """Run all canaries; returns the probes whose state has changed. Before the first check all are `missing`.

        The kernel leaves out runs of a program on a CPU where another thread was preempted amid the same one, and
        whoever has threads that do not go on can cause that: of a probe that was proven before, no silence follows.
        Its canary runs again on other CPUs; where it arrives on none, and the kernel has counted runs that it left out
        of each program in question, nobody knows more than before.
        """
        before, left_out = self._counts(), self._missed()
        with self._watched():
            self._canaries.run(each.name for each in self.reports if each.alternative is not None)
            ran = self._ran_since(before)
            if self._unsure(ran):
                with _any_cpus() as cpus:
                    for _ in cpus:
                        self._canaries.run(self._unsure(ran), again=True)
                        ran = self._ran_since(before)
                        if not self._unsure(ran):
                            break
        missed = frozenset(label for label, count in self._missed().items() if count > left_out.get(label, count))
        changed = []
        for index, old in enumerate(self.reports):
            new, why = self._state(old, ran, missed)
            if new != old.state:
                self.reports[index] = ProbeReport(old.plugin, old.probe, old.alternative, new, old.reasons, why)
                changed.append(self.reports[index])
        return changed

    def _counts(self) -> dict[str, int]:
        if self._runs is None:
            return {}
        return dict(zip(self._programs, (LONG.total(each) for each in self._runs.array()), strict=False))

    def _missed(self) -> Mapping[str, int]:
        try:
            return self._left_out()
        except KernelError:  # which is logged where they are told
            return {}

    def _ran_since(self, before: Mapping[str, int]) -> frozenset[str]:
        return frozenset(label for label, count in self._counts().items() if count > before[label])

    def _unheard_of(self, report: ProbeReport, ran: Collection[str]) -> list[Program]:
        due = report.alternative.programs if report.alternative is not None and report.probe.canary is not None else ()
        return [each for each in due if each.proven and each.label in self._attached and each.label not in ran]

    def _unsure(self, ran: Collection[str]) -> list[str]:
        """Probes that were proven, and whose canary ran and did not arrive this time."""
        return [
            each.name
            for each in self.reports
            if each.state in _PROVEN
            and each.name not in self._canaries.raised
            and not self._canaries.unproven(each.name)
            and self._unheard_of(each, ran)
        ]

    def silent(self) -> dict[str, str]:
        """Probes whose canary did not arrive at the last check, with the programs that it did not reach."""
        return {
            each.name: alternatives.silent(self._unheard[each.name]) for each in self.reports if each.state == "silent"
        }

    def _state(self, report: ProbeReport, ran: Collection[str], missed: Collection[str]) -> tuple[str, str]:
        """And why a canary could prove nothing."""
        if report.alternative is None:
            return "missing", ""
        if report.probe.canary is None:
            return "attached", ""
        unheard = self._unheard[report.name] = self._unheard_of(report, ran)
        if not unheard:
            return "alive", ""
        why = self._canaries.unproven(report.name)
        if report.name in self._canaries.raised and report.state in _PROVEN:
            # It was proven before, and nobody knows more now: a child could not be started, for one.
            return "attached", f"its canary could not run: {self._canaries.raised[report.name]}"
        if not why and report.state in _PROVEN and all(each.label in missed for each in unheard):
            # Or whoever has it left out would have what was tampered with before learnt as legal: see krie_checked.
            return "attached", "the kernel left out the runs that its canary caused"
        return ("attached", why) if why else ("silent", "")


@dataclass(frozen=True, slots=True)
class LossReport:
    """Records lost since the last look."""

    kind: str
    cause: str
    count: int
    total: int


class Losses:
    """Finds what was lost, exactly: what the kernel could not write, and what it wrote and never came."""

    def __init__(self, types: EventTypes, kinds: tuple[int, ...], counts: Map) -> None:
        """`counts`: the per-CPU map of attempts and losses, by index in `kinds`."""
        self._types, self._kinds, self._map = types, kinds, counts
        self._totals: dict[tuple[str, str], int] = {}
        self._due: dict[int, int] = {}
        """Records of each kind that must have come by the next look: written before the last one."""

    @property
    def total(self) -> int:
        """Everything lost since the start."""
        return sum(self._totals.values())

    def look(
        self, received: Mapping[int, int], undecodable: int, overflowed: int, failed: int, *, drained: bool
    ) -> Iterator[LossReport]:
        """Compare. The arguments are counts since the start; `drained`: the ring has just been read to its end.

        While it holds a backlog, what was not received yet is not a loss: that question then waits.
        """
        missing_broken = undecodable
        written: dict[int, int] = {}
        for kind, value in zip(self._kinds, self._map.array(), strict=False):
            counts = Count.total(value)
            held = counts.alike + counts.over  # told by krie.budget
            written[kind] = counts.attempts - counts.lost - held
            yield from self._changed(self._types[kind].name, "ring_full", counts.lost)
            short = max(0, self._due.get(kind, 0) - received.get(kind, 0)) if drained else 0
            # Broken records came too, of whatever kind they were meant to be.
            explained = min(short, missing_broken)
            missing_broken -= explained
            yield from self._changed(self._types[kind].name, "missing", short - explained)
        self._due = written
        yield from self._changed("", "undecodable", undecodable)
        yield from self._changed("", "journal_full", overflowed)
        yield from self._changed("", "journal_failed", failed)

    def _changed(self, kind: str, cause: str, count: int) -> Iterator[LossReport]:
        known = self._totals.get((kind, cause), 0)
        if count > known:
            self._totals[kind, cause] = count
            yield LossReport(kind, cause, count - known, count)


def health_facts(
    lost: int,
    missed: int,
    policy_failures: int,
    reports: Iterable[ProbeReport],
    degraded: Iterable[str],
    services: Iterable[str],
    *,
    stands_in: bool = False,
) -> dict[str, Json]:
    """`input.health`. `services`: those of `krie.services` that are in trouble; `stands_in`: the embedded engine
    decides instead of a configured OPA server."""
    not_alive: list[Json] = [each.name for each in reports if each.state not in ("alive", "attached")]
    return {
        "lost": lost,
        "missed": missed,
        "policy_failures": policy_failures,
        "probes_not_alive": not_alive,
        "degraded": list[Json](sorted(degraded)),
        "engine_stands_in": stands_in,
        "services": list[Json](sorted(services)),
    }
