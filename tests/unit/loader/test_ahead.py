"""Programs are loaded side by side, and belong to whoever takes them."""

import os
import threading

import pytest
from krie import AttachType, Program
from krie.errors import AttachError, KernelError
from krie.loader.ahead import Ahead
from krie.testing.patience import PATIENCE_S

A, B, C = (Program(AttachType.LSM, name, f"p_{name}") for name in "abc")


def opened(_program: Program) -> int:
    return os.open(os.devnull, os.O_RDONLY)


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor loads one program after the other")
def test_two_are_loaded_at_once() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def load(program: Program) -> int:
        both.wait()
        return opened(program)

    Ahead(load, (A, B)).close()


def test_what_is_taken_stays_open_and_the_rest_does_not() -> None:
    made: dict[Program, int] = {}

    def load(program: Program) -> int:
        return made.setdefault(program, opened(program))

    ahead = Ahead(load, (A, B))
    taken = ahead.take(A)
    ahead.close()
    assert taken == made[A]
    assert (is_open(made[A]), is_open(made[B])) == (True, False)
    os.close(taken)


def test_what_was_refused_is_raised_to_whoever_takes_it() -> None:
    def load(program: Program) -> int:
        if program is B:
            raise AttachError("loading b", 22)
        return opened(program)

    ahead = Ahead(load, (A, B))
    os.close(ahead.take(A))
    with pytest.raises(KernelError, match="loading b"):
        ahead.take(B)
    ahead.close()


def test_what_nobody_thought_of_is_loaded_when_it_is_taken() -> None:
    loaded = []

    def load(program: Program) -> int:
        loaded.append(program)
        return opened(program)

    ahead = Ahead(load, (A,))
    os.close(ahead.take(C))
    os.close(ahead.take(A))
    os.close(ahead.take(A))  # a second time: what was loaded before belongs to the first one
    assert loaded == [A, C, A]
    ahead.close()
