"""Room for poison: who has most poisoned processes makes it, and nobody else."""

from collections.abc import Iterator

from krie.enforce.room import Room
from krie.enforce.verdicts import Verdict
from krie.events.identity import Key

ONE, OTHER, NOBODY = 1000, 1001, 65534


class Table:
    def __init__(self, *there: Verdict) -> None:
        self.there = set(there)
        self.walks = 0
        self.walk_s = 0.0
        self.now = 0.0
        self.told: list[Verdict] = []

    def poisoned(self) -> Iterator[Verdict]:
        self.walks += 1
        self.now += self.walk_s
        yield from tuple(self.there)

    def stands(self, verdict: Verdict) -> bool:
        return verdict in self.there

    def clear(self, verdict: Verdict) -> None:
        self.there.discard(verdict)

    def room(self) -> Room:
        return Room(self, self.told.append, lambda: self.now)


def of(share: int, *untils: int) -> list[Verdict]:
    return [Verdict(Key(share + until, 1), 0, until, 1, 1, share) for until in untils]


def test_who_has_most_makes_room_by_what_is_over_first() -> None:
    table = Table(*of(ONE, 30, 10, 20), *of(OTHER, 1, 2))
    assert table.room().make(NOBODY)
    assert table.there == {*of(ONE, 20, 30), *of(OTHER, 1, 2)}
    assert table.told == of(ONE, 10)


def test_nobody_makes_room_for_himself_or_for_who_has_as_many() -> None:
    table = Table(*of(ONE, 30, 10, 20), *of(OTHER, 1, 2, 3))
    for share in (ONE, OTHER):
        assert not table.room().make(share)
    assert len(table.there) == 6
    assert table.told == []


def test_what_ended_is_no_room_that_was_made() -> None:
    """Who has processes end and start quickly would else get beyond his share each time."""
    table = Table(*of(ONE, 10, 20, 30))
    table.walk_s = 1.0
    room = table.room()
    assert room.make(NOBODY)
    table.there = {*of(ONE, 30)}
    assert room.make(NOBODY)
    assert table.there == set()
    table.there = {*of(ONE, 40)}
    assert not room.make(NOBODY)  # not seen yet
    assert table.there == {*of(ONE, 40)}


def test_walks_take_a_small_part_of_the_time() -> None:
    table = Table(*of(ONE, *range(100)))
    table.walk_s = 1.0
    room = table.room()
    for _ in range(50):
        assert room.make(NOBODY)
    assert table.walks == 1
    table.now += 10
    assert room.make(NOBODY)
    assert table.walks == 2


def test_nobody_makes_room_where_nobody_is_poisoned() -> None:
    assert not Table().room().make(NOBODY)
