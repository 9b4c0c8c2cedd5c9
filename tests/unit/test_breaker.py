"""The circuit breaker: distinct processes within a period, per rule."""

from krie.breaker import CircuitBreaker
from krie.process import Key

PERIOD = 1000


def breaker(most: int = 2) -> tuple[CircuitBreaker, list[tuple[str, int]]]:
    tripped: list[tuple[str, int]] = []
    return CircuitBreaker(most, PERIOD, lambda rule, count: tripped.append((rule, count))), tripped


def test_one_too_many_trips_it_once() -> None:
    made, tripped = breaker()
    assert [made.allows("R", Key(tgid, 1), tgid) for tgid in (1, 2, 3, 4, 1)] == [True, True, False, False, False]
    assert tripped == [("R", 3)]
    assert made.state() == {"R": (3, True)}


def test_the_same_process_counts_once() -> None:
    made, tripped = breaker()
    assert all(made.allows("R", Key(1, 1), now) for now in range(100))
    assert made.allows("R", Key(1, 2), 100)  # another one with the same number
    assert not made.allows("R", Key(1, 3), 100)
    assert tripped == [("R", 3)]


def test_hits_of_before_the_period_do_not_count() -> None:
    made, tripped = breaker()
    assert all(made.allows("R", Key(each, 1), each * PERIOD) for each in range(100))
    assert not tripped


def test_a_process_that_goes_on_stays_within_the_period() -> None:
    made, _ = breaker()
    made.allows("R", Key(1, 1), 0)
    made.allows("R", Key(2, 1), PERIOD - 1)
    made.allows("R", Key(1, 1), PERIOD - 1)
    assert not made.allows("R", Key(3, 1), PERIOD + 1)


def test_rules_are_apart_and_can_be_re_armed() -> None:
    made, _ = breaker(1)
    for rule in ("A", "B"):
        assert [made.allows(rule, Key(tgid, 1), 0) for tgid in (1, 2)] == [True, False]
    assert made.rearm("C") == []
    assert made.rearm("A") == ["A"]
    assert made.allows("A", Key(1, 1), 0)
    assert not made.allows("B", Key(1, 1), 0)
    assert made.rearm() == ["B"]


def test_a_process_that_is_hit_again_keeps_no_older_one_in_the_period() -> None:
    made, tripped = breaker()
    for process, now in ((1, 0), (2, 100), (1, 900)):
        assert made.allows("R", Key(process, 1), now)
    assert made.allows("R", Key(3, 1), 1150)  # that of 100 is over, and the other one's time began anew at 900
    assert made.state() == {"R": (2, False)}
    assert not made.allows("R", Key(4, 1), 1850)
    assert tripped == [("R", 3)]
