"""The circuit breaker: distinct principals within a period, per rule."""

from krie.enforce.breaker import CircuitBreaker
from krie.processes.principal import Principal

PERIOD = 1000


def user(number: int) -> Principal:
    return Principal("user", number)


def breaker(most: int = 2) -> tuple[CircuitBreaker, list[tuple[str, int]]]:
    tripped: list[tuple[str, int]] = []
    return CircuitBreaker(most, PERIOD, lambda rule, count: tripped.append((rule, count))), tripped


def test_one_too_many_trips_it_once() -> None:
    made, tripped = breaker()
    assert [made.allows("R", user(each), each) for each in (1, 2, 3, 4, 1)] == [True, True, False, False, False]
    assert tripped == [("R", 3)]
    assert made.state() == {"R": (3, True)}


def test_the_same_one_counts_once() -> None:
    made, tripped = breaker()
    assert all(made.allows("R", user(1), now) for now in range(100))
    assert made.allows("R", Principal("lineage", 1), 100)  # another one with the same number
    assert not made.allows("R", user(3), 100)
    assert tripped == [("R", 3)]


def test_hits_of_before_the_period_do_not_count() -> None:
    made, tripped = breaker()
    assert all(made.allows("R", user(each), each * PERIOD) for each in range(100))
    assert not tripped


def test_who_goes_on_stays_within_the_period() -> None:
    made, _ = breaker()
    made.allows("R", user(1), 0)
    made.allows("R", user(2), PERIOD - 1)
    made.allows("R", user(1), PERIOD - 1)
    assert not made.allows("R", user(3), PERIOD + 1)


def test_rules_are_apart_and_can_be_re_armed() -> None:
    made, _ = breaker(1)
    for rule in ("A", "B"):
        assert [made.allows(rule, user(each), 0) for each in (1, 2)] == [True, False]
    assert made.rearm("C") == []
    assert made.rearm("A") == ["A"]
    assert made.allows("A", user(1), 0)
    assert not made.allows("B", user(1), 0)
    assert made.rearm() == ["B"]


def test_who_is_hit_again_keeps_no_older_one_in_the_period() -> None:
    made, tripped = breaker()
    for each, now in ((1, 0), (2, 100), (1, 900)):
        assert made.allows("R", user(each), now)
    assert made.allows("R", user(3), 1150)  # that of 100 is over, and the other one's time began again at 900
    assert made.state() == {"R": (2, False)}
    assert not made.allows("R", user(4), 1850)
    assert tripped == [("R", 3)]
