"""A sensor that does not compile is found and left out, with children that only say that they compile."""

import os
import socket
from contextlib import ExitStack

import pytest
from krie.errors import CompileError, LoaderError
from krie.kernel.features import Features
from krie.loader.channel import Channel
from krie.loader.launcher import LoadedSet, LoaderProcess, load
from krie.loader.messages import Failure, Purpose, Request

from .answers import ANSWERS_WITHIN_S, exists, loaded, nothing_changes, null, request

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


class Compiler:
    """Starts children that compile all sensors but some, and counts them."""

    def __init__(self, **broken: str) -> None:
        """`broken`: what a sensor does to the compiler: `error` or `crash`."""
        self.broken = broken
        self.started = 0

    def __call__(self) -> LoaderProcess:
        self.started += 1
        return LoaderProcess(ANSWERS_WITHIN_S, self.serve)

    def serve(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        channel.send({"features": Features().to_json()})
        asked = Request.from_json(channel.receive()[0])
        faults = {self.broken[name] for name in asked.sensors if name in self.broken}
        if "crash" in faults:
            os.abort()
        if "error" in faults:
            channel.send({"failure": Failure("", details=f"in {', '.join(asked.sensors)}").to_json()})
            return
        names = () if asked.purpose is Purpose.CHECK else tuple(f"map:{name}" for name in asked.sensors)
        channel.send({"loaded": loaded(*names).to_json(), "timings": []}, [null() for _ in names])


def load_all(compiler: Compiler, *names: str, essential: frozenset[str] = frozenset({"process"})) -> LoadedSet:
    with ExitStack() as children:
        first = children.enter_context(compiler())
        first.features()
        _, asked, found = load(first, request(*names), essential, compiler, children, nothing_changes)
        assert {f"map:{name}" for name in asked.sensors} == found.descriptors.keys()
        return found


def test_what_compiles_at_once_takes_one_child() -> None:
    compiler = Compiler()
    found = load_all(compiler, "process", "a", "b")
    assert (found.dropped, compiler.started) == ({}, 1)
    found.close()


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [("error", CompileError, "in process, bad"), ("crash", LoaderError, "sensor bad brings the compiler down")],
)
def test_a_sensor_that_does_not_compile_is_named_and_left_out(how: str, error: type[Exception], text: str) -> None:
    found = load_all(Compiler(bad=how), "process", "good", "bad")
    assert found.descriptors.keys() == {"map:process", "map:good"}
    assert found.dropped.keys() == {"bad"}
    assert isinstance(found.dropped["bad"], error)
    assert text in str(found.dropped["bad"])
    found.close()


def test_an_essential_sensor_is_never_left_out() -> None:
    with pytest.raises(CompileError, match="process"):
        load_all(Compiler(process="error"), "process", "good")


def test_a_failure_that_no_single_sensor_causes_is_raised() -> None:
    class Together(Compiler):
        def serve(self, sock: socket.socket) -> None:
            channel = Channel(sock)
            channel.send({"features": Features().to_json()})
            if len(Request.from_json(channel.receive()[0]).requests) > 2:
                channel.send({"failure": Failure("", details="too much").to_json()})
            else:
                channel.send({"loaded": loaded().to_json(), "timings": []})

    compiler = Together()
    with pytest.raises(CompileError, match="too much"):
        load_all(compiler, "process", "a", "b")
    assert compiler.started == 4  # all, and then each alone


def test_no_child_is_left_behind() -> None:
    made: list[int] = []

    class Counted(Compiler):
        def __call__(self) -> LoaderProcess:
            started = super().__call__()
            made.append(started._tgid)
            return started

    load_all(Counted(bad="crash"), "process", "bad").close()
    assert len(made) == 4
    assert not any(map(exists, made))
