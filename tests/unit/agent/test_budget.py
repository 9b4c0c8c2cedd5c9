"""What programs are told of a policy and of limits, and what is told of records that were held back."""

import struct
from collections.abc import Iterator
from typing import cast

import pytest
from krie import Action, FiredRule, KernelError, Scope
from krie.agent.budget import Budgets, HeldReport, importance
from krie.events.agent import AGENT_EVENTS
from krie.events.event import EventType, EventTypes
from krie.kernel.maps import Map
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.policy.engine import Path, Rule
from krie.policy.metadata import Metadata
from krie.testing.fakes import FakeMap

from ..kernel_side import LoggedMap

TYPES = EventTypes((*AGENT_EVENTS, BpfCall, Ptrace))
KINDS = (BpfCall.KIND, Ptrace.KIND)
PTRACE = EventType(Ptrace)
MATTERS, UNLIKE, UNJUDGED = 1, 2, 4


def rule(action: Action, severity: str, *reads: Path, kind: str = Ptrace.NAME) -> Rule:
    fired = FiredRule("R", action, Scope.EVENT)
    return Rule("R", "krie.x", "x.rego:1", Metadata(severity=severity), fired, frozenset({kind}), frozenset(reads))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], 0),
        ([rule(Action.LOG, "medium")], 0),
        ([rule(Action.LOG, "high", ("event", "kind"))], MATTERS),
        ([rule(Action.LOG, "critical", kind=BpfCall.NAME)], 0),
        ([rule(Action.KILL, "", ("event", "operation"), ("process", "exe"))], MATTERS),
        ([rule(Action.KILL, "low", ("event", "target", "program"))], MATTERS),  # which programs compare, too
        ([rule(Action.KILL, "low", ("event", "target", "uid"))], MATTERS | UNLIKE),
        ([rule(Action.KILL, "low", ("event", "target"))], MATTERS | UNLIKE),
        ([rule(Action.KILL, "low", ("event", "request"))], MATTERS | UNLIKE),
        ([rule(Action.KILL, "low", ("event",))], MATTERS | UNLIKE),
        ([rule(Action.OVERRIDE, "low", ("process", "cgroup", "path"))], MATTERS | UNLIKE),
        ([rule(Action.LOG, "low", ("event", "request")), rule(Action.KILL, "low", ("health", "lost"))], MATTERS),
    ],
)
def test_what_matters_to_a_policy(rules: list[Rule], expected: int) -> None:
    assert importance(rules, PTRACE) == expected


class Counts:
    """Of two CPUs, by slot: attempts, lost, alike, over."""

    def __init__(self) -> None:
        self.values = [[0, 0, 0, 0], [0, 0, 0, 0]]

    def array(self) -> Iterator[bytes]:
        for each in self.values:
            yield struct.pack("=4Q", *each) * 2


def budgets(cpus: int = 2, **more: FakeMap) -> tuple[Budgets, dict[str, FakeMap], Counts]:
    counts = Counts()
    maps = {
        "krie_limits": FakeMap("krie_limits", value_bytes=56),
        "krie_importance": FakeMap("krie_importance", value_bytes=4),
        "krie_budgets": FakeMap("krie_budgets", key_bytes=8, value_bytes=24),
        "krie_ring": FakeMap("krie_ring", entries=1 << 20),
        **more,
    }
    made = Budgets(TYPES, KINDS, cast("dict[str, Map]", {**maps, "krie_counts": counts}), cpus)
    return made, maps, counts


def spent(maps: dict[str, FakeMap], user: int, slot: int, decided: int, held: int) -> None:
    maps["krie_budgets"].set(struct.pack("=II", user, slot * 2 + decided), struct.pack("=3Q", 0, 0, held))


def test_limits_leave_a_part_of_the_ring_to_what_matters() -> None:
    made, maps, _ = budgets()
    made.limit(burst=40, per_s=200)
    seed, common, interval, burst, other, other_burst, repeat = struct.unpack(
        "=7Q", maps["krie_limits"].content[bytes(4)]
    )
    assert seed % 2 == 1
    assert 0 < common < 1 << 20
    assert (interval, burst, repeat) == (10**7, 20 * 10**7, 10**9)
    assert (other_burst // other, interval // other) == (80, 2)
    made.limit(burst=10, per_s=100)
    assert maps["krie_limits"].content[bytes(4)][:8] != struct.pack("=Q", seed)  # nobody can know it


@pytest.mark.parametrize(
    ("cpus", "burst", "per_s", "of_each"),
    [
        (1, 64, 100, (64, 100)),
        (2, 64, 100, (32, 50)),
        (64, 64, 100, (16, 10)),  # so few that whoever stays on one CPU could hide nothing behind as many
        (64, 5, 1, (5, 1)),
        (64, 64_000, 6400, (1000, 100)),
    ],
)
def test_all_cpus_together_have_one_budget(cpus: int, burst: int, per_s: int, of_each: tuple[int, int]) -> None:
    made, maps, _ = budgets(cpus)
    made.limit(burst, per_s)
    _, _, interval, at_once, *_ = struct.unpack("=7Q", maps["krie_limits"].content[bytes(4)])
    assert (at_once // interval, 10**9 // interval) == of_each


def test_importance_follows_the_policy() -> None:
    made, maps, _ = budgets()
    for rules, unjudged, flags in (
        ([rule(Action.KILL, "")], (), [0, MATTERS]),
        ([], [BpfCall.NAME], [UNJUDGED, 0]),
        ([], (), [0, 0]),
    ):
        made.tell(made.needs(rules, unjudged))
        assert [each[0] for each in maps["krie_importance"].content.values()] == flags


def test_what_programs_were_not_told_is_told_the_next_time() -> None:
    log: list[tuple[str, str, bytes]] = []
    failing: set[tuple[str, str]] = set()
    importance_map = LoggedMap("krie_importance", value_bytes=4, log=log, failing=failing)
    made, _, _ = budgets(krie_importance=importance_map)
    made.tell(made.needs([]))
    failing.add(("set", "krie_importance"))
    needs = made.needs([rule(Action.KILL, "")])
    with pytest.raises(KernelError):
        made.tell(needs)
    failing.clear()
    log.clear()
    for _ in range(2):
        made.tell(needs)
    assert log == [("set", "krie_importance", struct.pack("=I", 1))]  # once, and only what differs
    assert [each[0] for each in importance_map.content.values()] == [0, MATTERS]


def test_what_was_held_back_is_told_once_with_the_user_of_most() -> None:
    made, maps, counts = budgets()
    assert list(made.look()) == []
    counts.values[1] = [100, 1, 20, 3]
    spent(maps, 1000, 1, 0, 4)
    spent(maps, 1001, 1, 1, 30)
    spent(maps, 1002, 0, 0, 99)
    assert list(made.look()) == [HeldReport(Ptrace.NAME, 40, 6, 46, 1001)]
    assert list(made.look()) == []
    counts.values[1] = [200, 1, 21, 3]
    spent(maps, 1000, 1, 0, 6)
    assert list(made.look()) == [HeldReport(Ptrace.NAME, 2, 0, 48, 1000)]


def test_users_whom_the_kernel_has_forgotten_are_forgotten() -> None:
    """Else whoever takes one user id after the other has the agent's memory grow without end."""
    made, maps, counts = budgets()
    for user in range(2000):
        maps["krie_budgets"].content.clear()
        counts.values[0][3] += 1
        spent(maps, 100_000 + user, 0, 0, 1)
        assert [each.user for each in made.look()] == [100_000 + user]
    assert len(made._by_user) == 1


def test_a_user_whom_the_kernel_forgot_and_counts_anew_is_told() -> None:
    made, maps, counts = budgets()
    for held, other in ((50, 40), (5, 41)):  # of the first one the kernel began anew
        counts.values[0][3] += 5
        spent(maps, 1000, 0, 0, held)
        spent(maps, 1001, 0, 0, other)
        assert [each.user for each in made.look()] == [1000]
