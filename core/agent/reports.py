"""What the agent tells about itself: each thing as a log line for people, and as an event for journal and policies."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

from ..enforce.containment import NAME as CONTAINMENT
from ..enforce.guard_sensor import NAME as GUARD
from ..events.agent import (
    EngineState,
    Held,
    JournalState,
    Loss,
    Missed,
    OwnEvents,
    PluginState,
    PolicyState,
    ProbeState,
    ServiceState,
    Started,
    Stopped,
    Trouble,
)
from ..events.enforcement import Gap, Guarded
from ..events.event import Event, EventTypes
from ..opa.server import Change as EngineChange
from ..plugin.isolation import PluginFault
from ..plugin.report import ProbeReport
from ..policy.policy import Policy
from ..services.troubles import Note
from ..version import version
from .blindness import blind_rules
from .budget import HeldReport
from .bus import Bus
from .endurance import Failing
from .health import LossReport, ProbeHealth
from .journal_file import Change
from .load_facts import LoadFacts
from .missed import MissedReport
from .presence import Presence

_log = logging.getLogger("krie")


class Reports:
    """Tells. Nothing is remembered here."""

    def __init__(self, bus: Bus, own: OwnEvents, probes: ProbeHealth, types: EventTypes) -> None:
        """`bus` takes the events that `own` completes; `probes` and `types` say which rules are blind."""
        self._bus, self._own, self._probes, self._types = bus, own, probes, types

    def started(self, facts: LoadFacts, policy: Policy, armed_ms: int, processes: int) -> None:
        """The agent is armed; its probes were told before."""
        reports = self._probes.reports
        alive = sum(each.state == "alive" for each in reports)
        self.tell(
            Started,
            probes=len(reports),
            alive=alive,
            armed_ms=armed_ms,
            processes=processes,
            release=facts.features.release,
            revision=policy.revision,
            krie_version=version(),
            programs=facts.programs,
        )
        _log.info("armed in %d ms: %d of %d probes alive, policy %s", armed_ms, alive, len(reports), policy.revision)

    def stopped(self, reason: str, lost: int, remembered: int) -> None:
        """Nothing comes after this."""
        events = self._bus.judged
        self.tell(Stopped, events=events, lost=lost, remembered=remembered, reason=reason)
        rate = 100 * remembered // max(1, events)
        _log.info("stopped (%s): %d events, %d lost, memo hit rate %d%%", reason, events, lost, rate)

    def probe(self, report: ProbeReport, policy: Policy) -> None:
        """How a probe stands, and which rules it makes blind."""
        told_together = (
            report.plugin in (CONTAINMENT, GUARD) and report.state == "missing"
        )  # see krie.agent.enforcement
        if report.state != "alive" and not told_together:
            reason, _, details = report.reason.partition("\n")  # the verifier's log has lines
            _log.warning("probe %s is %s: %s", report.name, report.state, reason, extra={"details": details})
        self.tell(
            ProbeState,
            plugin=report.plugin,
            probe=report.probe.name,
            alternative=report.alternative.name if report.alternative is not None else "",
            state=report.state,
            reason=report.reason,
            blind=self._blind(self._to_be_judged_with(report), policy),
        )

    def gap(self, presence: Presence) -> None:
        """The agent before this one did not end by itself."""
        before = presence.before()
        if before is None or before.clean:
            return
        gap_s = presence.gap_s(before)
        state = "died" if presence.same_boot(before) else "machine_ended"
        _log.warning(
            "the agent before this one (%d) did not end by itself: nobody watched for %d s", before.tgid, gap_s
        )
        self.tell(Gap, tgid_before=before.tgid, last_seen_s=int(before.last_seen_s), gap_s=gap_s, state=state)

    def trouble(self, failing: Failing) -> None:
        """Some work of the agent's failed; the log has it already."""
        self.tell(Trouble, count=failing.count, work=failing.work, reason=failing.reason)

    def put_right(self, attempt: str) -> None:
        """Somebody changed something of the agent's process from outside."""
        _log.error("somebody changed the agent's process (%s); it is put right where that is possible", attempt)
        self.tell(Guarded, stranger_tgid=0, stranger_start_time=0, count=1, attempt=attempt)

    def held_up(self, seconds: float) -> None:
        """The agent did not run for a while, and nobody decided what the kernel does not decide alone."""
        _log.warning("the agent was stopped or frozen: nobody watched for %.1f s", seconds)
        last_seen_s = int(time.time() - seconds)
        self.tell(Gap, tgid_before=os.getpid(), last_seen_s=last_seen_s, gap_s=int(seconds), state="held_up")

    def plugin(self, fault: PluginFault) -> None:
        """A plugin failed; the log got its traceback when that happened."""
        state = "degraded" if fault.degraded else "fault"
        self.tell(PluginState, plugin=fault.plugin, state=state, reason=f"{fault.hook} {fault.error}".strip())

    def loss(self, loss: LossReport) -> None:
        """Something will never be seen."""
        _log.warning("lost %d records of %s: %s", loss.count, loss.kind or "any kind", loss.cause)
        self.tell(Loss, lost_kind=loss.kind, cause=loss.cause, count=loss.count, total=loss.total)

    def journal(self, change: Change) -> None:
        """Somebody did something to a file of the journal."""
        path, detail = str(change.path), f" ({change.detail})" if change.detail else ""
        _log.warning("journal %s: %s; %d lines went elsewhere%s", path, change.state, change.lines, detail)
        counts = {"lines": change.lines, "bytes": change.bytes}
        self.tell(JournalState, state=change.state, path=path, detail=change.detail, **counts)

    def service(self, note: Note) -> None:
        """A service cannot be used, or can be used again."""
        if note.state == "well":
            _log.info("%s: works again", note.service)
        else:
            _log.warning("%s: %s", note.service, note.reason)
        self.tell(ServiceState, service=note.service, state=note.state, reason=note.reason, count=note.count)

    def held(self, held: HeldReport) -> None:
        """Somebody did more of something than is told."""
        if held.over:
            _log.warning(
                "%d records of %s, by user (or PID namespace) %d above all, were held back",
                held.over,
                held.kind,
                held.user,
            )
        self.tell(Held, alike=held.alike, over=held.over, total=held.total, held_kind=held.kind, user=held.user)

    def missed(self, missed: MissedReport) -> None:
        """A probe did not see something."""
        _log.warning("the kernel left out %d runs of %s", missed.count, missed.program)
        self.tell(Missed, program=missed.program, count=missed.count, total=missed.total)

    def policy_loaded(self, policy: Policy) -> None:
        """A changed policy is in force."""
        blind = self._blind(self._probes.reports, policy)
        rules = len(policy.rules)
        self.tell(PolicyState, state="loaded", reason="", revision=policy.revision, rules=rules, blind=blind)
        _log.info("policy %s is in force: %d rules", policy.revision, rules)

    def policy_refused(self, policy: Policy, reason: str) -> None:
        """A changed policy is wrong; `policy` stays in force."""
        first, _, others = reason.partition("\n")
        _log.error("new policy rejected, keeping the previous one: %s", first, extra={"details": others})
        rules = len(policy.rules)
        self.tell(PolicyState, state="refused", reason=reason, revision=policy.revision, rules=rules, blind="")

    def policy_failed(self, policy: Policy, reason: str) -> None:
        """The policy in force could not decide something, or its process was replaced; the log has it already."""
        rules = len(policy.rules)
        self.tell(PolicyState, state="failed", reason=reason, revision=policy.revision, rules=rules, blind="")

    def engine(self, change: EngineChange, policy: Policy, stood_in: int) -> None:
        """Another engine decides from now on."""
        if change.engine == "opa":
            _log.info("the OPA server decides by policy %s", policy.revision)
        else:
            _log.warning("the embedded engine decides, since the OPA server does not: %s", change.reason)
        fields = {"engine": change.engine, "reason": change.reason, "stood_in": stood_in}
        self.tell(EngineState, revision=policy.revision, **fields)

    def _to_be_judged_with(self, report: ProbeReport) -> list[ProbeReport]:
        """All probes of the same event, if this is the last of them: only together they say which rules are blind."""
        event = report.probe.event
        same = [each for each in self._probes.reports if event is not None and each.probe.event is event]
        return same if same and same[-1].name == report.name else []

    def _blind(self, reports: Iterable[ProbeReport], policy: Policy) -> str:
        found = list(blind_rules(policy.rules, reports, self._types))
        for each in found:
            _log.warning("rule %s (%s) is blind: %s", each.rule.id, each.rule.place, each.why)
        return " ".join(sorted({each.rule.id for each in found}))

    def tell(self, event: type[Event], **fields: object) -> None:
        """Journal an event of the agent's own."""
        self._bus.handle(self._own.complete(event.without_header(**fields)))
