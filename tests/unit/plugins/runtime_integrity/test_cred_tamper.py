"""Since when credentials are followed: what the agent tells the programs after it looked at what works."""

from __future__ import annotations

import time

import pytest
from krie.plugins.runtime_integrity.cred_tamper import Followed
from krie.testing.fakes import FakeMap, fake_maps

COMMIT = "runtime_integrity_commit_fentry"
NEVER = (1 << 64) - 1


class Word:
    """A number that agent and programs share."""

    def __init__(self) -> None:
        self.map = FakeMap(indexed=True)

    @property
    def value(self) -> int:
        return int.from_bytes(self.map.get(bytes(4)) or b"", "little")

    @value.setter
    def value(self, value: int) -> None:
        self.map.set(bytes(4), (value % (1 << 64)).to_bytes(8, "little"))


class Following:
    """The agent's part, since when changes are followed, and how many commits the second program alone noted."""

    def __init__(self) -> None:
        self.followed, self.since, self.made_up = Followed(), Word(), Word()
        self.attach()

    def attach(self) -> None:
        maps = {"runtime_integrity_followed_since": self.since.map, "runtime_integrity_made_up": self.made_up.map}
        self.followed.attach(fake_maps(**maps))

    def forgives(self, missed: int, silent: tuple[str, ...] = ()) -> bool:
        """Whether nothing counts any more that was noted before this look."""
        before, began = self.since.value, now()
        self.followed.checked(silent, {COMMIT: missed} if missed else {})
        assert self.since.value == before or began <= self.since.value <= now()
        return self.since.value != before


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_nothing_happened() -> None:
    following = Following()
    following.followed.checked((), {})
    following.followed.checked(("ptrace",), {"runtime_integrity_cred_born": 1, "runtime_integrity_commit_kprobe": 3})
    assert following.since.value == 0


def test_what_the_second_program_makes_up_for_is_forgiven_nobody() -> None:
    following = Following()
    following.made_up.value = 3
    assert not following.forgives(2)
    assert not following.forgives(1)
    assert following.forgives(1)


@pytest.mark.parametrize("silent", [(), ("commit_again",)])
def test_commits_that_passed_both_programs(silent: tuple[str, ...]) -> None:
    """Whatever the kernel counts of the second one, and also where that is off by the time of the look, or on again."""
    following = Following()
    following.made_up.value = 1
    assert following.forgives(2, silent)
    assert not following.forgives(0, silent)
    following.made_up.value = 3
    assert not following.forgives(2, silent)
    assert following.forgives(1, silent)


def test_a_commit_amid_both_programs_hides_none_for_long() -> None:
    """The second one has noted it, and the first one, which runs behind it, not found that yet."""
    following = Following()
    following.made_up.value = 1
    assert not following.forgives(1)
    following.made_up.value = 0
    assert following.forgives(0)
    following.made_up.value = 1
    assert not following.forgives(0)
    following.made_up.value = 0
    assert not following.forgives(0)


def test_who_commits_the_same_again_is_not_forgiven_for_it() -> None:
    following = Following()
    following.made_up.value = -5
    assert not following.forgives(0)
    assert following.forgives(1)
    assert not following.forgives(0)


def test_a_silent_canary_until_it_arrives_again() -> None:
    following = Following()
    following.followed.checked(("cred_tamper",), {})
    assert following.since.value == NEVER
    following.followed.checked(("cred_tamper",), {COMMIT: 1})
    assert following.since.value == NEVER
    assert following.forgives(0)
    assert not following.forgives(0)


def test_what_was_made_up_for_while_silent_hides_nothing_later() -> None:
    following = Following()
    following.followed.checked(("cred_tamper",), {})
    following.made_up.value = 9
    assert following.forgives(0)
    assert following.forgives(1)


def test_a_new_agent_begins_with_what_there_is() -> None:
    following = Following()
    following.made_up.value = 9
    following.attach()
    assert not following.forgives(0)
    assert following.forgives(1)


def test_the_programs_know_of_a_later_time() -> None:
    following = Following()
    following.since.value = later = now() + 10**10
    following.followed.checked((), {COMMIT: 1})
    assert following.since.value == later
