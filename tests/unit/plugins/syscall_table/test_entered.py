"""What comes to lists of functions, and goes from them, is told once, with its owner."""

from krie.plugins.syscall_table.entered import NOBODY, Change, Entered
from krie.plugins.syscall_table.entry import Entry

FIRST, SECOND = Entry("die_chain", 0x1000, 0x10), Entry("die_chain", 0x1008, 0x20)
OWNERS = {0x10: ("own", "kernel"), 0x20: ("hook [evil]", "evil"), 0x30: ("", NOBODY)}


class Lists:
    """Looks, one after the other."""

    def __init__(self) -> None:
        self.entered = Entered()

    def look(self, **lists: list[Entry]) -> list[Change]:
        return self.entered.take(lists, self.entered.changes(lists), OWNERS.__getitem__)


def test_what_is_there_at_first_is_not_told() -> None:
    lists = Lists()
    assert lists.look(notifiers=[FIRST]) == []
    assert lists.look(notifiers=[FIRST]) == []
    assert lists.look(notifiers=[FIRST], filters=[SECOND]) == []  # which could not be read before


def test_what_comes_and_goes() -> None:
    lists = Lists()
    lists.look(notifiers=[FIRST])
    assert lists.look(notifiers=[FIRST, SECOND]) == [Change(SECOND, True, "hook [evil]", "evil")]
    assert lists.look(notifiers=[FIRST, SECOND]) == []
    assert lists.look() == []  # it could not be read
    assert lists.look(notifiers=[SECOND]) == [Change(FIRST, False, "own", "kernel")]
    assert lists.look(notifiers=[]) == [Change(SECOND, False, "hook [evil]", "evil")]


def test_the_first_one_of_an_empty_list_is_told() -> None:
    lists = Lists()
    lists.look(filters=[])
    assert lists.look(filters=[SECOND]) == [Change(SECOND, True, "hook [evil]", "evil")]


def test_a_pointer_that_leads_elsewhere_now() -> None:
    lists = Lists()
    lists.look(notifiers=[FIRST])
    other = Entry("die_chain", FIRST.address, 0x20)
    assert lists.look(notifiers=[other]) == [
        Change(FIRST, False, "own", "kernel"),
        Change(other, True, "hook [evil]", "evil"),
    ]


def test_the_owner_is_who_had_it_when_it_came() -> None:
    """Whoever unloads the module may look first."""
    lists = Lists()
    lists.look(notifiers=[])
    lists.look(notifiers=[SECOND])
    gone = lists.entered.changes({"notifiers": []})
    told = lists.entered.take({"notifiers": []}, gone, lambda _: ("", NOBODY))
    assert told == [Change(SECOND, False, "hook [evil]", "evil")]


def test_what_is_nobodys_is_told_elsewhere() -> None:
    lists = Lists()
    stray = Entry("die_chain", 0x1010, 0x30)
    lists.look(notifiers=[])
    assert lists.look(notifiers=[stray]) == []
    assert lists.look(notifiers=[]) == []
