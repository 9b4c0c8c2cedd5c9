"""From decisions to what was done, against tables that only remember, and on real processes of the test's own."""

import errno
import os
import signal
import time

import pytest
from krie import Action, FiredRule, Scope
from krie.decision import Mode, merge
from krie.enforce import kill
from krie.enforce.enforcer import Ability, RuleNumbers, would
from krie.enforce.verdicts import Verdict
from krie.errors import KernelError
from krie.events.event import Event
from krie.events.identity import Identity, Key
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.testing.events import build

from .enforced import AGENT, Setting, by, decided, lives, start_time


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
    (verdict,) = setting.tables.given
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


def test_a_process_that_ended_is_not_left_poisoned(victim: int) -> None:
    """The kernel side saw its end before it was poisoned, and the agent's record of it comes later."""
    setting = Setting()
    assert setting.done(by(victim), decided(Action.OVERRIDE, Scope.PROCESS)) == ["poisoned"]
    setting.enforcer.ended(Key(victim, start_time(victim)))
    assert setting.untouched
    setting.enforcer.ended(Key(victim, start_time(victim)))  # and nothing is cleared twice


def test_verdicts_end_with_their_process(victim: int) -> None:
    setting = Setting()
    assert setting.done(by(victim), decided(Action.OVERRIDE)) == ["bound"]
    setting.enforcer.ended(Key(victim + 1, start_time(victim)))
    assert len(setting.tables.bound) == 1
    setting.enforcer.ended(Key(victim, start_time(victim)))
    assert setting.untouched


def test_nobody_waits_for_a_thread_that_ended(victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends his first thread only is alive, and was waited for at each decision."""
    setting = Setting()
    waits: list[int] = []
    real = kill.ended

    def ended(descriptor: int, wait_ms: int = 0) -> bool:
        waits.append(wait_ms)
        return real(descriptor, wait_ms)

    monkeypatch.setattr(kill, "ended", ended)
    assert setting.done(by(victim), decided(Action.OVERRIDE, Scope.PROCESS)) == ["poisoned"]
    assert waits == [0]


def test_whoever_dies_slowly_is_waited_for_now_and_then(victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    now = [100.0]

    def ended(_descriptor: int, wait_ms: int = 0) -> bool:
        waits.append(wait_ms)
        now[0] += wait_ms / 1000
        return False

    monkeypatch.setattr(kill, "ended", ended)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    killer = kill.Killer()
    for _ in range(20):
        assert not killer.kill(0)
        now[0] += 0.03
    assert sum(waits) <= 2 * kill.DIES_WITHIN_MS


@pytest.mark.parametrize("broken", ["poison", "bind_host", "pidfd"])
@pytest.mark.parametrize("error", [KernelError("writing a map", errno.ENOMEM), OSError(errno.EMFILE, "no room")])
def test_what_fails_keeps_nothing_stronger_from_being_done(
    victim: int, broken: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise error

    setting = Setting(host_scope=True)
    scope = Scope.HOST if broken == "bind_host" else Scope.PROCESS
    if broken == "pidfd":
        monkeypatch.setattr(kill, "gone", fail)
    else:
        monkeypatch.setattr(setting.tables, broken, fail)
    assert setting.done(by(victim), decided(Action.KILL, scope, 60)) == [f"failed: {error}", "killed"]
    assert not lives(victim)


def test_without_a_descriptor_a_process_is_poisoned_all_the_same(victim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_tgid: int) -> int:
        raise OSError(errno.EMFILE, "no room")

    setting = Setting()
    monkeypatch.setattr(os, "pidfd_open", fail)
    done = setting.done(by(victim), decided(Action.KILL, Scope.PROCESS, 60))
    assert done == ["poisoned", f"failed: [Errno {errno.EMFILE}] no room"]
    assert len(setting.tables.given) == 1


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


def test_who_has_more_poisoned_processes_makes_room(victim: int) -> None:
    setting = Setting()
    before = Verdict(Key(5, 5), 0, 10**18, 1, 1, 1001)
    setting.tables.given, setting.tables.full = [before], True
    assert setting.done(by(victim, uid=1000), decided(Action.KILL, Scope.PROCESS, 600)) == ["poisoned", "killed"]
    (verdict,) = setting.tables.given
    assert (verdict.process.tgid, verdict.share) == (victim, 1000)
    assert setting.gave_way == [before]


def test_nobody_frees_a_process_of_his_own_by_more_of_them(victim: int) -> None:
    setting = Setting()
    before = Verdict(Key(5, 5), 0, 10**18, 1, 1, 1000)
    setting.tables.given, setting.tables.full = [before], True
    done = setting.done(by(victim, uid=1000), decided(Action.KILL, Scope.PROCESS, 600))
    assert done == ["failed: the table of poisoned processes is full", "killed"]
    assert (setting.tables.given, setting.gave_way) == ([before], [])


def test_nobody_makes_room_for_who_has_ended(victim: int) -> None:
    setting = Setting()
    before = Verdict(Key(5, 5), 0, 10**18, 1, 1, 1000)
    setting.tables.given, setting.tables.full = [before], True
    event = by(victim, start_time=5)
    assert setting.done(event, decided(Action.OVERRIDE, Scope.PROCESS)) == ["failed: the process had ended"]
    assert setting.tables.given == [before]


def test_full_tables_are_said(victim: int) -> None:
    setting = Setting()
    setting.tables.full = True
    done = setting.done(by(victim), decided(Action.KILL, Scope.PROCESS))
    assert done == ["failed: the table of poisoned processes is full", "killed"]
    assert setting.untouched
    done = Setting().done(by(os.getpid()), decided(Action.OVERRIDE))
    assert done == ["bound"]


def test_a_failing_table_ends_nothing() -> None:
    setting = Setting()
    setting.tables.full = True
    (done,) = setting.done(by(os.getpid()), decided(Action.OVERRIDE))
    assert done.startswith("failed: writing a map: E2BIG")


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
