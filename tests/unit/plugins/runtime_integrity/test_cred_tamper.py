"""Since when credentials are followed: what the agent tells the programs after it looked at what works."""

from __future__ import annotations

import time

import pytest
from krie.plugins.runtime_integrity.cred_tamper import Followed
from krie.testing.fakes import FakeMap, fake_maps

COMMITS = ("runtime_integrity_commit_fentry", "runtime_integrity_commit_kprobe")
AGAIN = "runtime_integrity_commit_again"
NEVER = (1 << 64) - 1


class Since:
    """The time that the programs find."""

    def __init__(self) -> None:
        self.map = FakeMap(indexed=True)

    @property
    def value(self) -> int:
        return int.from_bytes(self.map.get(bytes(4)) or b"", "little")

    @value.setter
    def value(self, value: int) -> None:
        self.map.set(bytes(4), value.to_bytes(8, "little"))


def following() -> tuple[Followed, Since]:
    followed, since = Followed(), Since()
    followed.attach(fake_maps(runtime_integrity_followed_since=since.map))
    return followed, since


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_nothing_happened() -> None:
    followed, since = following()
    followed.checked((), ())
    followed.checked(("ptrace",), ("runtime_integrity_cred_born",))
    assert since.value == 0


def test_a_commit_that_one_of_both_saw() -> None:
    followed, since = following()
    followed.checked((), COMMITS[:1])
    followed.checked(("commit_again",), COMMITS[1:])
    assert since.value == 0


@pytest.mark.parametrize(
    ("silent", "missed"), [((), COMMITS), ((), (COMMITS[0], AGAIN)), (("commit_again",), COMMITS[:1])]
)
def test_commits_that_nothing_may_have_seen(silent: tuple[str, ...], missed: tuple[str, ...]) -> None:
    followed, since = following()
    before = now()
    followed.checked(silent, missed)
    assert before <= since.value <= now()


def test_a_silent_canary_until_it_arrives_again() -> None:
    followed, since = following()
    followed.checked(("cred_tamper",), ())
    assert since.value == NEVER
    followed.checked(("cred_tamper",), COMMITS)
    assert since.value == NEVER
    before = now()
    followed.checked((), ())
    assert before <= since.value <= now()
    followed.checked((), ())
    assert since.value <= now()


def test_the_programs_know_of_a_later_time() -> None:
    followed, since = following()
    since.value = now() + 10**10
    later = since.value
    followed.checked((), COMMITS)
    assert since.value == later
