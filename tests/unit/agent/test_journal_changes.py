"""Changes in the folder of a journal wake the agent."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from krie.agent.journal import Changes
from krie.agent.journal_file import Change


@contextmanager
def changes() -> Iterator[Changes]:
    made = Changes()
    yield made
    made.close()


def test_changes_wake_the_agent_and_are_taken_once(tmp_path: Path) -> None:
    with changes() as made, select.epoll() as poll:
        made.wait_on(poll)
        assert made.take() == []
        assert poll.poll(0) == []
        found = [Change(tmp_path / str(number), "moved") for number in range(3)]
        for each in found:
            made.put(each)
        assert poll.poll(0)
        assert made.take() == found
        assert (poll.poll(0), made.take()) == ([], [])


def test_a_change_that_is_taken_before_its_thread_woke_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[Change]()
    real = os.eventfd_write

    def first_taken(descriptor: int, value: int) -> None:
        taken.extend(made.take())
        real(descriptor, value)

    with changes() as made, select.epoll() as poll:
        made.wait_on(poll)
        monkeypatch.setattr(os, "eventfd_write", first_taken)
        made.put(Change(tmp_path, "moved"))
        assert taken == [Change(tmp_path, "moved")]
        assert made.take() == []
        assert poll.poll(0) == []
