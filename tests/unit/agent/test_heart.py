"""What a timer in the kernel saw of the agent between two of its beats."""

import struct

import pytest
from krie.agent.heart import Heart, Silence
from krie.testing.fakes import FakeMap

S = 10**9


def heart(
    last: int, *, stopped: int = 0, frozen: int = 0, starved: int = 0, waited: int = 0, now: int
) -> Silence | None:
    state = FakeMap("guard_heart", 9, 2, 4, 56, 1, True)
    state.set(bytes(4), struct.pack("=7Q", last, 1, last, stopped, frozen, starved, waited))
    beats: list[int] = []
    found = Heart(state, lambda: beats.append(1), lambda: now).beat()
    assert beats == [1]
    return found


def test_the_first_beat_says_nothing() -> None:
    assert heart(0, frozen=9 * S, now=50 * S) is None


def test_its_own_waiting_is_no_silence() -> None:
    assert heart(10 * S, waited=6 * S, now=16 * S) is None


def test_but_not_for_ever() -> None:
    """Somebody may hold up what it opens, by fanotify for one."""
    assert heart(10 * S, waited=30 * S, now=40 * S) == Silence(30.0, "held_up")


@pytest.mark.parametrize("state", ["stopped", "frozen"])
def test_it_was_kept_from_running(state: str) -> None:
    assert heart(10 * S, now=15 * S, **{state: 3 * S}) == Silence(5.0, state)
    assert heart(10 * S, now=12 * S, **{state: S // 4}) is None


def test_a_busy_machine_is_told_only_after_a_while() -> None:
    assert heart(10 * S, starved=5 * S, now=16 * S) is None
    assert heart(10 * S, starved=20 * S, now=32 * S) == Silence(22.0, "starved")
