"""What /proc does not tell of a process is not its end."""

import os
from collections.abc import Callable

import pytest
from krie import Action, Scope
from krie.enforce import kill
from krie.events.identity import Key
from krie.procfs import Procfs

from .enforced import Setting, by, decided, lives

ODD = [b"", b"\0" * 100, b"5 (a", b"5 (a) S 1", b"5 (a) " + b"x " * 50, b"\xff\xfe" * 500, b")" * 4096]


def absent() -> bytes:
    raise FileNotFoundError


def covered() -> bytes:
    raise OSError(18, os.strerror(18))


@pytest.fixture(params=[*ODD, absent, covered], ids=range(len(ODD) + 2))
def unread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's start can be read."""
    shown: bytes | Callable[[], bytes] = request.param
    monkeypatch.setattr(Procfs, "read", lambda *_: shown if isinstance(shown, bytes) else shown())


@pytest.mark.usefixtures("unread")
def test_who_cannot_be_read_is_poisoned_and_told_truthfully(victim: int) -> None:
    """Poison is by start time, too: it hits nobody who has his number by now. A signal might."""
    setting, event = Setting(), by(victim)
    poisoned, failed = setting.done(event, decided(Action.KILL, Scope.PROCESS, 600))
    assert poisoned == "poisoned"
    assert failed.startswith(f"failed: whether {victim} is still this process cannot be read in /proc: ")
    assert setting.done(event, decided(Action.OVERRIDE, Scope.EVENT)) == ["bound"]
    assert lives(victim)
    assert not kill.gone(Key(event.tgid, event.start_time), lambda _: 0)


@pytest.mark.usefixtures("unread")
def test_who_cannot_be_read_is_killed_where_the_kernel_tells_his_start(victim: int) -> None:
    setting, event = Setting(), by(victim)
    setting.start_times[victim] = event.start_time + 20_000_000  # somebody else
    assert setting.done(event, decided(Action.KILL)) == ["failed: the process had ended"]
    setting.start_times[victim] = event.start_time + 1
    assert lives(victim)
    assert setting.done(event, decided(Action.KILL)) == ["killed"]


@pytest.mark.usefixtures("unread")
def test_of_who_has_ended_the_pidfd_tells_it(victim: int) -> None:
    setting, event = Setting(), by(victim)
    os.kill(victim, 9)
    os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
    assert setting.done(event, decided(Action.KILL, Scope.PROCESS)) == ["failed: the process had ended"]
    assert setting.untouched
