"""From a decision to what was done about it, in the words of the journal: `WORDS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..config import EnforcementConfig
from ..decision import Action, Decision, FiredRule, Mode, Scope, merge
from ..errors import KernelError
from ..events.core_maps import Done
from ..events.event import BY_TABLE, DONE, INFLUENCED, Event
from ..events.identity import Identity, Key
from ..processes.principal import PrincipalOf
from . import kill
from .bound import Bound
from .breaker import CircuitBreaker
from .room import Room
from .verdicts import Verdict, share_of

WORDS: Mapping[str, str] = {
    "refused": "the operation failed: a program in the kernel refused it",
    "bound": "this operation went through; further ones of its kind by this process are refused",
    "poisoned": "the process's guarded operations are refused, and those of children that it starts from now on",
    "host": "everybody's guarded operations are refused, but those of the agent, tgid 1 and protected programs",
    "killed": "the process has ended, or the kernel took the signal before the process left it",
    "signalled": "the signal was sent; the process had not ended yet when the line was written",
    "restored": "the value that a scan found changed was restored through the kernel's own interface",
    "spared": "what was asked for was not done, for the reason behind the colon: whom no verdict may hit, or a tripped "
    "breaker, which still lets the operation be refused",
    "failed": "something of it could not be done, for the reason behind the colon",
}
"""What `done` says; a reason may follow behind a colon."""
_SECOND = 1_000_000_000
_TRIPPED = "spared: the rule's breaker is tripped"


@dataclass(frozen=True, slots=True)
class Effect:
    """What became of a decision."""

    mode: Mode
    done: tuple[str, ...] = ()
    would: tuple[str, ...] = ()
    """What enforcing would have done, where nothing was."""


class Carry(Protocol):
    """Whoever carries decisions out."""

    def __call__(self, event: Event, decision: Decision, /) -> Effect:
        """Say what was done."""


class Tables(Protocol):
    """Where verdicts take effect: see `krie.enforce.verdicts.Verdicts`."""

    def poison(self, verdict: Verdict, *, beyond_share: bool = False) -> bool:
        """False where there is no room, or its share of it is used up."""

    def poisoned(self) -> Iterator[Verdict]:
        """All poisoned processes."""

    def stands(self, verdict: Verdict) -> bool:
        """Whether a process is poisoned."""

    def bind(self, verdict: Verdict) -> None:
        """Refuse operations of one kind."""

    def bind_host(self, verdict: Verdict) -> None:
        """Refuse guarded operations to everybody."""

    def clear(self, verdict: Verdict) -> None:
        """Remove a verdict before it expires."""


def _said(word: str, event: Event) -> str:
    """What a program did, in the journal's words: poison fails for want of room, and a signal with an error."""
    if word in WORDS:
        return word
    why = f"error {event.errno}" if word == DONE[Done.KILL_FAILED] else "no room"
    return f"failed: {word.removesuffix(' failed')} in the kernel, {why}"


def _failed_in_kernel(rule: FiredRule, event: Event) -> bool:
    """Whether a program in the kernel decided this and could not do it, as when a thread that ends takes no signal."""
    killing = rule.action is Action.KILL and event.done & Done.KILL_FAILED
    poisoning = rule.scope is Scope.PROCESS and event.done & Done.POISON_FAILED
    return bool(killing or poisoning)


def would(decision: Decision) -> tuple[str, ...]:
    """What enforcing the decision would do."""
    if decision.action < Action.OVERRIDE:
        return ()
    wider = {Scope.PROCESS: ("poison",), Scope.HOST: ("host",)}.get(decision.scope, ())
    return (*wider, str(decision.action))


class RuleNumbers:
    """Numbers for rules, since the kernel's tables hold no text. 0 is not a rule."""

    def __init__(self) -> None:
        """Start with no rule numbered."""
        self._numbers: dict[str, int] = {}
        self._names: list[str] = [""]

    def number(self, rule: str) -> int:
        """The rule's number, the same as before if it was asked for before."""
        if rule not in self._numbers:
            self._numbers[rule] = len(self._names)
            self._names.append(rule)
        return self._numbers[rule]

    def name(self, number: int) -> str:
        """The rule with this number; empty for 0 and for numbers that were never given."""
        return self._names[number] if number < len(self._names) else ""


@dataclass(frozen=True, slots=True)
class Ability:
    """What can be done about events of one kind."""

    mode: Mode
    refuses: bool
    """The probe's program can refuse."""
    restore: Callable[[Event], str | None] | None = None
    """Puts back what a comparison found; the answer is None, or why it could not. None for what probes send."""


class Enforcer:
    """Carries decisions out. Never against tgid 1, the agent, kernel threads or protected programs."""

    def __init__(
        self,
        config: EnforcementConfig,
        verdicts: Tables,
        breaker: CircuitBreaker,
        rules: RuleNumbers,
        agent_tgid: int,
        ability: Callable[[int], Ability],
        decided: Callable[[Event], frozenset[str]],
        principal_of: PrincipalOf,
        gave_way: Callable[[Verdict], object],
        start_time: kill.StartTime,
    ) -> None:
        """`ability` answers for an event's kind, `decided` for an event: ids of rules that the kernel decided.

        `principal_of`: whom the breaker counts for an event. `gave_way` is told what was taken back for another;
        `start_time` is asked where /proc does not tell it.
        """
        self._config, self._verdicts, self._breaker, self._rules = config, verdicts, breaker, rules
        self._never = {1: "tgid 1", agent_tgid: "the agent"}
        self._ability, self._decided, self._principal_of = ability, decided, principal_of
        self._killer, self._start_time = kill.Killer(), start_time
        self._poisoned: dict[Key, Verdict] = {}
        """By the agent, and not known to have ended."""
        self.bound, self._room = Bound(verdicts), Room(verdicts, gave_way)
        self.protected: Mapping[Identity, str] = {}
        """Executables that are spared, replaced with each policy."""
        self.contained = 0
        """How many guarded operations are really refused to poisoned processes."""

    def __call__(self, event: Event, decision: Decision) -> Effect:
        """Carry out a decision about the process that did the event."""
        ability = self._ability(event.kind)
        done = [_said(word, event) for bit, word in DONE.items() if event.done & bit]
        if decision.action < Action.OVERRIDE:
            return Effect(ability.mode, tuple(done))
        if ability.mode is Mode.OBSERVE:
            return Effect(ability.mode, tuple(done), would(decision))
        if ability.restore is not None and decision.action is Action.OVERRIDE:
            why_not = ability.restore(event)
            return Effect(ability.mode, (*done, "restored" if why_not is None else f"failed: {why_not}"))
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        rules = [each for each in decision.rules if each.action >= Action.OVERRIDE]
        decided = self._decided(event)
        # What these say was done there, or spared there.
        in_kernel = decided - {each.id for each in rules if _failed_in_kernel(each, event)}
        if why := self._spared(event):
            if "refused" in done and all(each.id in in_kernel and not each.beyond_refusing for each in rules):
                return Effect(ability.mode, tuple(done))  # as a program that the kernel itself starts is
            return Effect(ability.mode, (*done, f"spared: {why}"), would(decision))
        tripped = self._tripped(rules, event, now)
        left = [each for each in rules if each.id not in in_kernel]
        left = [each for each in left if each.id not in tripped] or [each.refusing() for each in left]
        spared = tripped - in_kernel or (event.decided_by != BY_TABLE and tripped)
        done += [_TRIPPED] if spared else []
        if left:
            allowed = merge(left, tier=decision.tier, revision=decision.revision)
            done = list(dict.fromkeys([*done, *self._carry_out(event, allowed, ability, now)]))
        return Effect(ability.mode, tuple(done), would(decision) if spared else ())

    def ended(self, process: Key) -> None:
        """All of a process has ended: what was decided about it needs no room any more. Raises `KernelError`."""
        self.bound.ended(process)
        if (verdict := self._poisoned.pop(process, None)) is not None:
            self._verdicts.clear(verdict)

    def tick(self, now: int) -> None:
        """End verdicts on operations that are over. `now`: ns since boot. Raises `KernelError`."""
        self.bound.tick(now)
        self._poisoned = {process: verdict for process, verdict in self._poisoned.items() if verdict.until > now}

    def _tripped(self, rules: Iterable[FiredRule], event: Event, now: int) -> frozenset[str]:
        """Ids of the rules that may do no more than refuse. All that go beyond it are counted, the kernel's too."""
        beyond = [each for each in rules if each.beyond_refusing]
        if not beyond:
            return frozenset()
        principal = self._principal_of(event)
        return frozenset(each.id for each in beyond if not self._breaker.allows(each.id, principal, now))

    def _spared(self, event: Event) -> str:
        if event.tgid in self._never:
            return self._never[event.tgid]
        if event.context & INFLUENCED:
            return ""
        identity = Identity(event.exe_dev, event.exe_ino, event.exe_generation)
        if not any(identity):
            return "a kernel thread"
        program = self.protected.get(identity)
        return f"protected program {program}" if program is not None else ""

    def _carry_out(self, event: Event, decision: Decision, ability: Ability, now: int) -> Iterator[str]:
        """Each step by itself: a table that is full, or a descriptor that cannot be had, must not prevent a kill."""
        process = Key(event.tgid, event.start_time)
        rule = self._rules.number(min(each.id for each in decision.rules if each.action == decision.action))
        errno = decision.errno or 1
        if decision.scope is Scope.HOST:
            yield from _tried(self._bind_host(decision, rule, errno, now))
        if decision.scope is Scope.PROCESS:
            share = share_of(self._principal_of(event).payer(event))
            yield from _tried(self._poison(Verdict(process, 0, now + decision.ttl_s * _SECOND, rule, errno, share)))
        if decision.action is Action.KILL:
            yield from _tried(self._kill(process))
        elif decision.scope is Scope.EVENT:
            until = now + self._config.verdict_s * _SECOND
            yield from _tried(self._bind(Verdict(process, event.kind, until, rule, errno), ability, event))

    def _poison(self, verdict: Verdict) -> Iterator[str]:
        if not self._verdicts.poison(verdict) and not self._poison_instead(verdict):
            yield "failed: the table of poisoned processes is full"
            return
        # After it was poisoned: the kernel's side, which takes ended processes out, may have seen its end before.
        if kill.gone(verdict.process, self._start_time):
            self._verdicts.clear(verdict)
            raise kill.Gone
        self._poisoned[verdict.process] = verdict
        yield "poisoned"
        if not self.contained:
            yield "failed: no guarded operation can be refused here"

    def _poison_instead(self, verdict: Verdict) -> bool:
        """Instead of a process of somebody who has more of them."""
        if kill.gone(verdict.process, self._start_time):
            raise kill.Gone
        return self._room.make(verdict.share) and self._verdicts.poison(verdict, beyond_share=True)

    def _kill(self, process: Key) -> Iterator[str]:
        with kill.held(process, self._start_time) as descriptor:
            yield "killed" if self._killer.kill(descriptor) else "signalled"

    def _bind(self, verdict: Verdict, ability: Ability, event: Event) -> Iterator[str]:
        if not ability.refuses:
            yield "failed: the probe cannot refuse here"
            return
        if kill.gone(verdict.process, self._start_time):
            raise kill.Gone
        self.bound.bind(verdict, self._principal_of(event))
        yield "bound"

    def _bind_host(self, decision: Decision, rule: int, errno: int, now: int) -> Iterator[str]:
        if not self._config.host_scope:
            yield "failed: enforcement.host_scope is not set"
        elif not decision.ttl_s:
            yield "failed: scope host needs ttl_s"
        elif not self.contained:
            yield "failed: no guarded operation can be refused here"
        else:
            self._verdicts.bind_host(Verdict(Key(0, 0), 0, now + decision.ttl_s * _SECOND, rule, errno))
            yield "host"


def _tried(step: Iterator[str]) -> Iterator[str]:
    """One step, which fails for itself alone."""
    try:
        yield from step
    except kill.Gone:
        yield "failed: the process had ended"
    except (KernelError, OSError) as error:
        yield f"failed: {error}"
