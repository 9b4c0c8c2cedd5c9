"""Phases of a start: exclusive, complete, and the same on the other side of a message."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from krie.cli.render_timings import timings as show
from krie.timings import IMPORTS, OTHER, Phase, Spent, Timings, since_exec, so_far
from rich.console import Console


class Clock:
    """What the process spent is what the test says."""

    def __init__(self) -> None:
        self.now = Spent(100, 10, 1)

    def __call__(self) -> Spent:
        return self.now

    def work(self, wall_s: float) -> None:
        self.now += Spent(wall_s, wall_s / 2, wall_s / 4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wall(timings: Timings) -> dict[str, float]:
    return {each.name: each.spent.wall_s for each in timings.phases()}


def test_a_phase_within_another_one_stops_the_outer_one(clock: Clock) -> None:
    timings = Timings("agent", read=clock)
    with timings.phase("load"):
        clock.work(1)
        with timings.phase("verify"):
            clock.work(10)
        clock.work(2)
    clock.work(0.5)
    assert wall(timings) == {OTHER: 0.5, "load": 3, "verify": 10}


def test_user_and_system_time_are_kept_apart(clock: Clock) -> None:
    timings = Timings("agent", read=clock)
    with timings.phase("load"):
        clock.work(4)
    assert {each.name: each.spent for each in timings.phases()}["load"] == Spent(4, 2, 1)


def test_a_phase_that_comes_again_goes_on(clock: Clock) -> None:
    timings = Timings("agent", read=clock)
    for seconds in (1, 2):
        with timings.phase("load"):
            clock.work(seconds)
        clock.work(0.25)
    assert wall(timings) == {OTHER: 0.5, "load": 3}


def test_an_error_ends_its_phase(clock: Clock) -> None:
    timings = Timings("agent", read=clock)

    def fail() -> None:
        with timings.phase("load"):
            clock.work(1)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    clock.work(5)
    assert wall(timings) == {OTHER: 5, "load": 1}


def test_nothing_counts_once_the_start_is_over(clock: Clock) -> None:
    timings = Timings("agent", read=clock)
    clock.work(1)
    timings.stop()
    clock.work(5)
    with timings.phase("load"):
        clock.work(5)
    assert wall(timings) == {OTHER: 1}


def test_what_was_spent_before_is_the_imports(clock: Clock) -> None:
    assert wall(Timings("agent", Spent(0.3, 0.2, 0.1), clock)) == {IMPORTS: 0.3, OTHER: 0}


def test_phases_of_another_process_come_after_the_own_ones(clock: Clock) -> None:
    agent, loader = Timings("agent", read=clock), Timings("loader", read=clock)
    with loader.phase("compile"):
        clock.work(2)
    agent.merge(json.loads(json.dumps(loader.to_json())))
    assert [(each.process, each.name) for each in agent.phases()] == [
        ("agent", OTHER),
        ("loader", OTHER),
        ("loader", "compile"),
    ]
    assert agent.phases()[-1] == Phase("loader", "compile", Spent(2, 1, 0.5))


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "work"]), st.integers(1, 9)), max_size=30))
def test_all_phases_together_are_the_time_that_went_by(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    timings = Timings("agent", read=clock)
    ends: list[Callable[..., object]] = []
    before = clock.now
    for step, number in steps:
        if step == "begin":
            phase = timings.phase(f"phase {number}")
            phase.__enter__()
            ends.append(phase.__exit__)
        elif step == "end" and ends:
            ends.pop()(None, None, None)
        else:
            clock.work(number)
    total = Spent()
    for each in timings.phases():
        total += each.spent
    assert total == clock.now - before


def test_this_process_has_spent_cpu_time_and_is_older_than_this_test() -> None:
    before = so_far()
    while (now := so_far() - before).user_s + now.system_s < 0.02:
        sum(range(1000))
    assert now.wall_s > 0
    start = time.monotonic()
    age = since_exec()
    assert age.user_s >= 0.02
    assert age.wall_s + 0.02 >= now.wall_s
    assert since_exec().wall_s - age.wall_s <= time.monotonic() - start + 1


def test_a_table_has_a_row_for_each_phase_and_a_sum_for_each_process() -> None:
    output = io.StringIO()
    phases = [
        Phase("agent", "policy", Spent(1.25, 0.5, 0.125)),
        Phase("agent", "[attach]", Spent(2, 0.25, 1)),
        Phase("loader", "compile", Spent(4, 3, 0.5)),
    ]
    show(Console(file=output, width=120), phases)
    assert [line.split() for line in output.getvalue().splitlines() if line.strip()] == [
        ["Timings,", "s"],
        ["process", "phase", "wall", "user", "system"],
        ["agent", "policy", "1.250", "0.500", "0.125"],
        ["agent", "[attach]", "2.000", "0.250", "1.000"],
        ["loader", "compile", "4.000", "3.000", "0.500"],
        ["agent", "in", "all", "3.250", "0.750", "1.125"],
        ["loader", "in", "all", "4.000", "3.000", "0.500"],
    ]
