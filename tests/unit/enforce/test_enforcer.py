"""From decisions to what was done, against tables that only remember, and on real processes of the test's own."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie import Action, FiredRule, Scope
from krie.config import EnforcementConfig
from krie.decision import Decision, Mode, merge
from krie.enforce import kill
from krie.enforce.breaker import CircuitBreaker
from krie.enforce.enforcer import WORDS, Ability, Enforcer, RuleNumbers, would
from krie.enforce.verdicts import Verdict
from krie.errors import KernelError
from krie.events.event import BY_TABLE, Event
from krie.events.identity import Identity, Key
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.principal import Principal
from krie.testing.events import build

AGENT = 77
CAN = Ability(Mode.ENFORCE, refuses=True)


class Remembering:
    def __init__(self) -> None:
        self.poisoned: list[Verdict] = []
        self.bound: list[Verdict] = []
        self.host: list[Verdict] = []
        self.full = False

    def poison(self, verdict: Verdict) -> bool:
        self.poisoned += [] if self.full else [verdict]
        return not self.full

    def bind(self, verdict: Verdict) -> None:
        if self.full:
            raise KernelError("writing a map", 7)
        self.bound.append(verdict)

    def bind_host(self, verdict: Verdict) -> None:
        self.host.append(verdict)

    def clear(self, verdict: Verdict) -> None:
        self.poisoned.remove(verdict)


class Setting:
    def __init__(self, ability: Ability = CAN, most: int = 100, **config: object) -> None:
        self.tables, self.rules = Remembering(), RuleNumbers()
        self.tripped: list[tuple[str, int]] = []
        breaker = CircuitBreaker(most, 10**12, lambda rule, count: self.tripped.append((rule, count)))
        settings = EnforcementConfig.model_validate(config)
        self.in_kernel: frozenset[str] = frozenset()
        self.enforcer = Enforcer(
            settings,
            self.tables,
            breaker,
            self.rules,
            AGENT,
            lambda _: ability,
            lambda _: self.in_kernel,
            lambda event: Principal("user", event.uid),
        )
        self.enforcer.contained = 18

    def done(self, event: Event, decision: Decision) -> list[str]:
        done = list(self.enforcer(event, decision).done)
        assert {each.partition(":")[0] for each in done} <= WORDS.keys()
        return done

    @property
    def untouched(self) -> bool:
        return not (self.tables.poisoned or self.tables.bound or self.tables.host)


def decided(action: Action, scope: Scope = Scope.EVENT, ttl_s: int = 0, errno: int = 0, rule: str = "R1") -> Decision:
    return merge([FiredRule(rule, action, scope, errno, ttl_s)], tier="user", revision="r")


def start_time(tgid: int) -> int:
    """As exactly as /proc tells it."""
    return int(Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[19]) * 10_000_000


def by(tgid: int, **fields: object) -> Event:
    return build(SysctlWrite, **{"tgid": tgid, "start_time": start_time(tgid), "exe_ino": 5, "exe_dev": 1, **fields})


@pytest.fixture(autouse=True)
def time_to_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is that runs these tests."""
    monkeypatch.setattr(kill, "DIES_WITHIN_MS", 60_000)


@pytest.fixture
def victim() -> Iterator[int]:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    yield child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def lives(tgid: int) -> bool:
    return Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_would_be_done() -> None:
    assert would(decided(Action.LOG, Scope.PROCESS)) == ()
    assert would(decided(Action.OVERRIDE)) == ("override",)
    assert would(decided(Action.KILL, Scope.HOST)) == ("host", "kill")


def test_observing_touches_nothing(victim: int) -> None:
    setting = Setting(Ability(Mode.OBSERVE, refuses=True))
    outcome = setting.enforcer(by(victim), decided(Action.KILL, Scope.PROCESS))
    assert (outcome.mode, outcome.done, outcome.would) == (Mode.OBSERVE, (), ("poison", "kill"))
    assert setting.untouched
    assert lives(victim)


def test_an_override_binds_the_process_from_now_on(victim: int) -> None:
    setting = Setting(verdict_s=5)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert setting.done(by(victim), decided(Action.OVERRIDE, errno=13)) == ["bound"]
    (verdict,) = setting.tables.bound
    assert (verdict.process, verdict.kind, verdict.errno) == (Key(victim, start_time(victim)), SysctlWrite.KIND, 13)
    assert before <= verdict.until - 5 * 10**9 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert setting.rules.name(verdict.rule) == "R1"
    assert lives(victim)


def test_what_a_probe_cannot_refuse_is_said(victim: int) -> None:
    setting = Setting(Ability(Mode.ENFORCE, refuses=False))
    assert setting.done(by(victim), decided(Action.OVERRIDE)) == ["failed: the probe cannot refuse here"]
    assert setting.untouched


def test_a_kill_ends_the_process(victim: int) -> None:
    setting = Setting()
    assert setting.done(by(victim), decided(Action.KILL)) == ["killed"]
    assert not lives(victim)
    assert setting.untouched


def test_a_kill_of_scope_process_poisons_first(victim: int) -> None:
    setting = Setting()
    assert setting.done(by(victim), decided(Action.KILL, Scope.PROCESS, 600)) == ["poisoned", "killed"]
    (verdict,) = setting.tables.poisoned
    assert (verdict.process.tgid, verdict.kind, verdict.errno) == (victim, 0, 1)


def test_nobody_who_has_its_number_now_is_hit(victim: int) -> None:
    setting = Setting()
    other = by(victim, start_time=start_time(victim) - 10_000_000)
    for action, scope in ((Action.KILL, Scope.PROCESS), (Action.OVERRIDE, Scope.EVENT)):
        assert setting.done(other, decided(action, scope)) == ["failed: the process had ended"]
    assert lives(victim)
    assert setting.untouched


def test_a_process_that_ended_is_not_poisoned(victim: int) -> None:
    setting, event = Setting(), by(victim)
    os.kill(victim, signal.SIGKILL)
    os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
    assert setting.done(event, decided(Action.KILL, Scope.PROCESS)) == ["failed: the process had ended"]
    assert setting.untouched


def test_a_process_that_is_ending_is_not_left_poisoned(victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel side saw its end before it was poisoned, and its pidfd tells of it a moment later."""
    setting = Setting()
    monkeypatch.setattr(kill, "exiting", lambda _process: True)
    monkeypatch.setattr(kill, "ended", lambda _descriptor, wait_ms=0: wait_ms > 0)
    assert setting.done(by(victim), decided(Action.OVERRIDE, Scope.PROCESS)) == ["failed: the process had ended"]
    assert setting.untouched


def test_who_is_ending(victim: int) -> None:
    key = Key(victim, start_time(victim))
    assert not kill.exiting(key)
    os.kill(victim, signal.SIGKILL)
    os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
    assert kill.exiting(key)


@pytest.mark.parametrize(("tgid", "why"), [(1, "tgid 1"), (AGENT, "the agent")], ids=["init", "agent"])
@pytest.mark.parametrize("scope", [Scope.PROCESS, Scope.HOST])
def test_never(tgid: int, why: str, scope: Scope) -> None:
    setting = Setting(host_scope=True)
    event = build(SysctlWrite, tgid=tgid, start_time=1, exe_ino=5)
    outcome = setting.enforcer(event, decided(Action.KILL, scope, 60))
    assert outcome.done == (f"spared: {why}",)
    assert outcome.would
    assert setting.untouched


def test_kernel_threads_and_protected_programs_are_spared(victim: int) -> None:
    setting = Setting()
    setting.enforcer.protected = {Identity(1, 5, 0): "/usr/sbin/sshd"}
    assert setting.done(by(victim), decided(Action.KILL)) == ["spared: protected program /usr/sbin/sshd"]
    assert setting.done(by(victim, exe_ino=0, exe_dev=0), decided(Action.KILL)) == ["spared: a kernel thread"]
    assert setting.done(by(victim, exe_ino=6), decided(Action.OVERRIDE)) == ["bound"]
    assert setting.done(by(victim, context=0x10), decided(Action.OVERRIDE)) == ["bound"]  # somebody chose its libraries
    unknown = by(victim, exe_ino=0, exe_dev=0, context=0x100)
    assert setting.done(unknown, decided(Action.OVERRIDE)) == ["bound"]
    assert lives(victim)


def test_the_host_is_bound_only_where_that_was_opted_for_and_for_a_time(victim: int) -> None:
    override = decided(Action.OVERRIDE, Scope.HOST, ttl_s=9)
    assert Setting().done(by(victim), override) == ["failed: enforcement.host_scope is not set"]
    setting = Setting(host_scope=True)
    assert setting.done(by(victim), decided(Action.OVERRIDE, Scope.HOST)) == ["failed: scope host needs ttl_s"]
    assert setting.untouched
    assert setting.done(by(victim), override) == ["host"]
    assert len(setting.tables.host) == 1
    setting.enforcer.contained = 0
    assert setting.done(by(victim), override) == ["failed: no guarded operation can be refused here"]


def test_poison_that_holds_nothing_is_said_to(victim: int) -> None:
    setting = Setting()
    setting.enforcer.contained = 0
    done = setting.done(by(victim), decided(Action.OVERRIDE, Scope.PROCESS))
    assert done == ["poisoned", "failed: no guarded operation can be refused here"]


def test_full_tables_are_said(victim: int) -> None:
    setting = Setting()
    setting.tables.full = True
    done = setting.done(by(victim), decided(Action.KILL, Scope.PROCESS))
    assert done == ["failed: the table of poisoned processes is full", "killed"]
    done = Setting().done(by(os.getpid()), decided(Action.OVERRIDE))
    assert done == ["bound"]


def test_a_failing_table_ends_nothing() -> None:
    setting = Setting()
    setting.tables.full = True
    (done,) = setting.done(by(os.getpid()), decided(Action.OVERRIDE))
    assert done.startswith("failed: writing a map: E2BIG")


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (1, ["refused"]),
        (7, ["refused", "poisoned", "killed"]),
        (2 | 8, ["poisoned", "failed: killing in the kernel, error 16"]),
        (16, ["failed: poisoning in the kernel, error 16"]),
    ],
)
def test_what_the_kernel_did_is_said_in_every_mode(bits: int, words: list[str]) -> None:
    event = build(SysctlWrite, tgid=5, start_time=1, done=bits, errno=16)
    for mode in Mode:
        assert Setting(Ability(mode, refuses=True)).done(event, decided(Action.LOG)) == words


def test_what_the_kernel_did_is_not_said_twice(victim: int) -> None:
    event = by(victim, done=2 | 8, errno=16)
    done = Setting().done(event, decided(Action.KILL, Scope.PROCESS))
    assert done == ["poisoned", "failed: killing in the kernel, error 16", "killed"]


TRIPPED = "spared: the rule's breaker is tripped"
POISON = decided(Action.OVERRIDE, Scope.PROCESS, ttl_s=9)


def test_a_rule_that_poisons_too_many_only_refuses(victim: int) -> None:
    setting = Setting(most=2)
    outcomes = [setting.enforcer(by(victim, uid=each), POISON) for each in (1, 2, 3, 1)]
    assert [each.done for each in outcomes] == [("poisoned",), ("poisoned",), (TRIPPED, "bound"), (TRIPPED, "bound")]
    assert outcomes[2].would == ("poison", "override")
    assert setting.tripped == [("R1", 3)]
    assert setting.done(by(victim, uid=4), decided(Action.OVERRIDE, Scope.PROCESS, rule="R2")) == ["poisoned"]


def test_a_rule_that_kills_too_many_kills_nobody(victim: int) -> None:
    setting = Setting(most=1)
    setting.done(by(os.getppid(), uid=1), POISON)
    assert setting.done(by(victim, uid=2), decided(Action.KILL, Scope.PROCESS)) == [TRIPPED, "bound"]
    assert setting.tables.bound[-1].errno == 1
    assert lives(victim)


def test_refusing_never_trips_it(victim: int) -> None:
    setting = Setting(most=1)
    for uid in range(100):
        assert setting.done(by(victim, uid=uid), decided(Action.OVERRIDE)) == ["bound"]
    assert setting.tripped == []


def test_the_processes_of_one_user_do_not_trip_it(victim: int) -> None:
    setting = Setting(most=1)
    for _ in range(100):
        assert setting.done(by(victim, uid=1), POISON) == ["poisoned"]
    assert setting.done(by(victim, uid=1), decided(Action.KILL)) == ["killed"]


def test_the_rules_beside_a_tripped_one_still_hold(victim: int) -> None:
    setting = Setting(most=1)
    setting.done(by(os.getppid(), uid=1), decided(Action.OVERRIDE, Scope.PROCESS, rule="R1"))
    both = merge(
        [FiredRule("R1", Action.KILL, Scope.EVENT), FiredRule("R2", Action.OVERRIDE, Scope.PROCESS, 13)],
        tier="user",
        revision="r",
    )
    assert setting.done(by(victim, uid=2), both) == [TRIPPED, "poisoned"]
    assert setting.tables.poisoned[-1].errno == 13
    assert lives(victim)


def test_what_the_kernel_decided_is_not_done_again(victim: int) -> None:
    setting = Setting(most=1)
    setting.in_kernel = frozenset({"R1"})
    event = by(victim, done=1, decided_by=BY_TABLE)
    assert setting.done(event, decided(Action.OVERRIDE)) == ["refused"]
    assert setting.untouched
    assert setting.done(by(victim, done=6, decided_by=BY_TABLE), decided(Action.KILL)) == ["poisoned", "killed"]
    assert lives(victim)
    both = merge([FiredRule("R1", Action.OVERRIDE), FiredRule("R2", Action.OVERRIDE)], tier="kernel", revision="r")
    assert setting.done(event, both) == ["refused", "bound"]


def test_the_kernels_hits_count_for_the_breaker_too(victim: int) -> None:
    setting = Setting(most=1)
    setting.in_kernel = frozenset({"R1"})
    for uid in (1, 2, 3):
        done = setting.done(by(victim, uid=uid, done=3, decided_by=BY_TABLE), decided(Action.OVERRIDE, Scope.PROCESS))
        assert done == ["refused", "poisoned"]
    assert setting.tripped == [("R1", 2)]


def test_the_kernels_refusals_do_not(victim: int) -> None:
    setting = Setting(most=1)
    setting.in_kernel = frozenset({"R1"})
    for uid in range(100):
        event = by(victim, uid=uid, done=1, decided_by=BY_TABLE)
        assert setting.done(event, decided(Action.OVERRIDE)) == ["refused"]
    assert setting.tripped == []


def test_whom_the_kernel_spared_is_spared(victim: int) -> None:
    setting = Setting()
    setting.in_kernel = frozenset({"R1"})
    (why,) = setting.done(by(1, decided_by=BY_TABLE), decided(Action.OVERRIDE))
    assert why == "spared: tgid 1"


def test_what_the_kernel_refused_to_itself_was_not_spared(victim: int) -> None:
    setting = Setting()
    setting.in_kernel = frozenset({"R1"})
    event = by(victim, done=1, decided_by=BY_TABLE, exe_ino=0, exe_dev=0)
    assert setting.done(event, decided(Action.OVERRIDE)) == ["refused"]
    assert setting.done(event, decided(Action.KILL)) == ["refused", "spared: a kernel thread"]
    assert setting.done(event, decided(Action.OVERRIDE, rule="R2")) == ["refused", "spared: a kernel thread"]


def test_rule_numbers() -> None:
    numbers = RuleNumbers()
    assert [numbers.number(each) for each in ("A", "B", "A")] == [1, 2, 1]
    assert [numbers.name(each) for each in (0, 1, 2, 3)] == ["", "A", "B", ""]


@pytest.mark.parametrize(("why_not", "done"), [(None, "restored"), ("no interface", "failed: no interface")])
def test_what_a_comparison_found_is_put_back(why_not: str | None, done: str) -> None:
    asked: list[Event] = []

    def restore(event: Event) -> str | None:
        asked.append(event)
        return why_not

    found = build(SysctlWrite, tgid=AGENT)  # events of comparisons are the agent's own
    decision = merge([FiredRule("R", Action.OVERRIDE)], tier="user", revision="")
    observing = Setting(Ability(Mode.OBSERVE, refuses=False, restore=restore))
    assert (observing.enforcer(found, decision).would, asked) == (("override",), [])
    enforcing = Setting(Ability(Mode.ENFORCE, refuses=False, restore=restore))
    assert enforcing.enforcer(found, decision).done == (done,)
    assert asked == [found]


def test_what_a_comparison_found_cannot_be_killed() -> None:
    setting = Setting(Ability(Mode.ENFORCE, refuses=False, restore=lambda _: None))
    decision = merge([FiredRule("R", Action.KILL)], tier="user", revision="")
    assert setting.enforcer(build(SysctlWrite, tgid=AGENT), decision).done == ("spared: the agent",)
