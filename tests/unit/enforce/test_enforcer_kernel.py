"""What the kernel did or decided already is said, and not done again."""

import pytest
from krie import Action, FiredRule, Scope
from krie.decision import Mode, merge
from krie.enforce.enforcer import Ability
from krie.events.event import BY_TABLE
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.testing.events import build

from .enforced import Setting, by, decided, lives


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (1, ["refused"]),
        (7, ["refused", "poisoned", "killed"]),
        (2 | 8, ["poisoned", "failed: killing in the kernel, error 16"]),
        (16, ["failed: poisoning in the kernel, no room"]),
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


@pytest.mark.parametrize(("done", "left"), [(2 | 8, ["poisoned", "killed"]), (4 | 16, ["killed", "poisoned"])])
def test_what_the_kernel_decided_and_could_not_do_is_done(victim: int, done: int, left: list[str]) -> None:
    """A thread that ends takes no signal, and its process goes on."""
    setting = Setting()
    setting.in_kernel = frozenset({"R1"})
    event = by(victim, done=done, decided_by=BY_TABLE, errno=1)
    words = setting.done(event, decided(Action.KILL, Scope.PROCESS, 60))
    assert [each for each in words if not each.startswith("failed")] == left
    assert not lives(victim)


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
