"""Verdicts on operations: one user's many processes take no room of another's, and what ended takes none at all."""

import errno

import pytest
from krie.enforce.bound import Bound
from krie.enforce.verdicts import Verdict
from krie.errors import KernelError
from krie.events.identity import Key
from krie.processes.principal import Principal

ROOM = 4
ONE, OTHER = Principal("user", 1000), Principal("user", 1001)


class Table:
    def __init__(self) -> None:
        self.there: set[tuple[Key, int]] = set()
        self.error = errno.E2BIG

    def bind(self, verdict: Verdict) -> None:
        if len(self.there) >= ROOM and (verdict.process, verdict.kind) not in self.there:
            raise KernelError("writing a map", self.error)
        self.there.add((verdict.process, verdict.kind))

    def clear(self, verdict: Verdict) -> None:
        self.there.discard((verdict.process, verdict.kind))


def verdict(tgid: int, kind: int = 7, until: int = 100) -> Verdict:
    return Verdict(Key(tgid, 1), kind, until, 1, 1)


def test_who_has_most_makes_room() -> None:
    table = Table()
    bound = Bound(table)
    bound.bind(verdict(1), OTHER)
    for tgid in range(2, 10):
        bound.bind(verdict(tgid), ONE)
    assert {process.tgid for process, _ in table.there} == {1, 7, 8, 9}
    bound.bind(verdict(10), OTHER)
    assert {process.tgid for process, _ in table.there} == {1, 8, 9, 10}
    assert len(bound) == ROOM


def test_what_ended_takes_no_room() -> None:
    table = Table()
    bound = Bound(table)
    for kind in (7, 8):
        bound.bind(verdict(1, kind), ONE)
    bound.bind(verdict(2), ONE)
    bound.ended(Key(1, 2))  # another one with that number
    assert len(table.there) == 3
    bound.ended(Key(1, 1))
    assert table.there == {(Key(2, 1), 7)}


def test_each_ends_at_its_time_and_lasts_as_long_as_the_last_one() -> None:
    table = Table()
    bound = Bound(table)
    bound.bind(verdict(1, until=100), ONE)
    bound.bind(verdict(1, until=200), ONE)
    bound.bind(verdict(2, until=100), ONE)
    bound.tick(99)
    assert len(table.there) == 2
    bound.tick(100)
    assert table.there == {(Key(1, 1), 7)}
    bound.tick(200)
    assert (table.there, len(bound)) == (set(), 0)


def test_what_administrators_took_back_makes_no_room() -> None:
    table = Table()
    bound = Bound(table)
    for tgid in range(ROOM):
        bound.bind(verdict(tgid), ONE)
    table.there -= {(Key(tgid, 1), 7) for tgid in range(2)}
    for tgid in range(10, 13):
        bound.bind(verdict(tgid), OTHER)
    assert {process.tgid for process, _ in table.there} == {3, 10, 11, 12}


def test_where_something_else_fails_nobody_makes_room() -> None:
    table = Table()
    bound = Bound(table)
    for tgid in range(ROOM):
        bound.bind(verdict(tgid), ONE)
    table.error = errno.EPERM
    with pytest.raises(KernelError):
        bound.bind(verdict(9), ONE)
    assert len(table.there) == len(bound) == ROOM
