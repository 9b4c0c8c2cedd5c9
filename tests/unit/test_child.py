"""A forked process: what it says, how it ended, and that nobody waits for it without end."""

import os
import signal
import socket

import pytest
from krie.child import Child, ChildEnded, Link, forked
from krie.testing.patience import PATIENCE_S, wait_for


def test_a_child_says_how_it_ended() -> None:
    def crash(link: Link) -> None:
        link.receive()
        os.write(2, b"a last word\n")
        os.abort()

    child = forked(crash)
    child.send(1)
    with pytest.raises(ChildEnded):
        child.receive(PATIENCE_S)
    assert child.end(PATIENCE_S) == child.end() == "was ended by SIGABRT (a last word)"


def test_a_child_that_raises_says_what() -> None:
    child = forked(lambda _: print(1 // 0))
    with pytest.raises(ChildEnded):
        child.receive(PATIENCE_S)
    assert "exited with status 1" in child.end(PATIENCE_S)
    assert "ZeroDivisionError" in child.end()


def test_a_socket_that_is_closed_is_a_child_that_ended() -> None:
    """Whatever the error: who asks it must decide otherwise, and not fail."""
    ours, theirs = socket.socketpair()
    with theirs:
        link = Link(ours)
        link.close()
        with pytest.raises(ChildEnded):
            link.send(1, PATIENCE_S)
        with pytest.raises(ChildEnded):
            link.receive(PATIENCE_S)


def test_large_values_and_slow_readers() -> None:
    def echo(link: Link) -> None:
        while True:
            link.send(link.receive())

    child: Child = forked(echo)
    for size in (0, 1, 1 << 20):
        child.send("x" * size, PATIENCE_S)
        assert child.receive(PATIENCE_S) == "x" * size
    with pytest.raises(TimeoutError):
        child.receive(0.01)
    os.kill(child.tgid, signal.SIGSTOP)
    wait_for(lambda: child.stopped)
    with pytest.raises(TimeoutError):
        child.send("x" * (1 << 23), 0.05)
    child.end(0.0)
