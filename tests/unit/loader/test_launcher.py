"""The agent's side of loading, with a child that compiles and attaches nothing and yet answers, fails or crashes."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie import KernelError
from krie.errors import CompileError, LoaderError
from krie.kernel.features import Features
from krie.kernel.standing import Standing
from krie.loader import launcher
from krie.loader.channel import Channel, ChannelClosed
from krie.loader.launcher import LoaderProcess
from krie.loader.messages import Failure, Loaded, Purpose
from krie.testing.patience import wait_for
from krie.timings import Phase, Spent

from .answers import ANSWERS_WITHIN_S, exists, loaded, nothing_changes, null, request

pytestmark = pytest.mark.usefixtures("nothing_stays_open")
Serve = Callable[[socket.socket], None]
TIMINGS = [Phase("loader", "attach", Spent(3, 2, 1)).to_json()]


def child(serve: Callable[[Channel], None], timeout_s: float = ANSWERS_WITHIN_S) -> LoaderProcess:
    return LoaderProcess(timeout_s, lambda sock: serve(Channel(sock)))


def answering(*answers: tuple[Loaded, int] | Failure) -> Callable[[Channel], None]:
    """Says what the kernel accepts, and then one answer for each request: what is loaded, with so many descriptors."""

    def serve(channel: Channel) -> None:
        channel.send({"features": Features(release="6.12").to_json()})
        for each in answers:
            channel.receive()
            if isinstance(each, Failure):
                channel.send({"failure": each.to_json()})
            else:
                channel.send({"loaded": each[0].to_json(), "timings": TIMINGS}, [null() for _ in range(each[1])])

    return serve


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


def test_what_was_loaded_comes_with_its_descriptors() -> None:
    names = ("map:krie_ring", "program:p_a", "link:p_a", "link:p_a")
    with child(answering((loaded(*names), 4))) as made:
        assert made.features().release == "6.12"
        found = made.load(request("process"), nothing_changes)
    assert {name: len(each) for name, each in found.descriptors.items()} == {
        "map:krie_ring": 1,
        "program:p_a": 1,
        "link:p_a": 2,
    }
    assert list(found.timings) == TIMINGS
    descriptors = [each for group in found.descriptors.values() for each in group]
    assert all(map(is_open, descriptors))
    found.close()
    assert not any(map(is_open, descriptors))


def test_an_administrator_tells_it_from_the_agent() -> None:
    def serve(channel: Channel) -> None:
        channel.send({"features": Features(release=Path("/proc/self/comm").read_text()).to_json()})

    with child(serve) as made:
        assert made.features().release == "krie-loader\n"


def test_falling_back_detaches_what_is_no_longer_in_use_and_nothing_else() -> None:
    first = loaded("map:m", "program:krie_inspect", "program:p_a", "link:p_a", "program:p_b", "link:p_b")
    second = loaded("program:p_c", "link:p_c", attached=("p_b", "p_c"))
    with child(answering((first, 6), (second, 2))) as made:
        made.features()
        before = made.load(request("process"), nothing_changes)
        after = made.fall_back(request("process"), before, {"p.a": "silent"})
    gone = [before.descriptors["program:p_a"][0], before.descriptors["link:p_a"][0]]
    assert after.descriptors.keys() == {
        "map:m",
        "program:krie_inspect",
        "program:p_b",
        "link:p_b",
        "program:p_c",
        "link:p_c",
    }
    held = [each for group in after.descriptors.values() for each in group]
    assert all(map(is_open, held))
    assert not any(is_open(each) for each in set(gone) - set(held))  # but for numbers that were given again
    after.close()
    assert list(after.timings) == TIMINGS


def test_a_child_that_attaches_is_not_ended_with_what_it_alone_holds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def serve(channel: Channel) -> None:
        channel.send({"features": Features(release="6.12").to_json()})
        channel.receive()
        channel.send({"attaching": True}, [null()])
        assert channel.receive()[0] == {"attach": []}
        channel.send({"loaded": loaded("map:m").to_json(), "timings": TIMINGS}, [null()])
        with suppress(ChannelClosed):
            channel.receive()
        Path("/proc/self/comm").write_text("waits")
        time.sleep(1000)

    monkeypatch.setattr(launcher, "_LETS_GO_WITHIN_S", 0.01)
    with child(serve) as made:
        made.features()
        made.load(request("process"), nothing_changes).close()
        tgid = made._tgid
    wait_for(lambda: Path(f"/proc/{tgid}/comm").read_text() == "waits\n")
    assert f"process {tgid} keeps the probes until they can be removed" in caplog.text
    os.kill(tgid, signal.SIGKILL)
    os.waitpid(tgid, 0)


def test_another_way_to_attach_the_same_function_takes_the_place_of_the_first_one() -> None:
    first = loaded("map:p_a", "program:p_a", "link:p_a")
    second = loaded("program:p_a", attached=("p_a",))
    with child(answering((first, 3), (second, 1))) as made:
        made.features()
        before = made.load(request("process"), nothing_changes)
        after = made.fall_back(request("process"), before, {"p.a": "silent"})
    assert after.descriptors.keys() == {"map:p_a", "program:p_a"}
    assert after.descriptors["map:p_a"] == before.descriptors["map:p_a"]
    assert not is_open(before.descriptors["link:p_a"][0])
    assert not is_open(before.descriptors["program:p_a"][0])
    after.close()


@pytest.mark.parametrize(
    ("purpose", "standing", "text"),
    [
        (Purpose.ATTACH, None, "a request to attach needs `standing`"),
        (Purpose.CHECK, nothing_changes, "a request to check takes no `standing`"),
        (Purpose.TRIAL, nothing_changes, "a request to trial takes no `standing`"),
    ],
)
def test_who_attaches_says_what_that_changes_and_nobody_else(
    purpose: Purpose, standing: Callable[[], Standing] | None, text: str
) -> None:
    with child(answering()) as made:
        made.features()
        with pytest.raises(ValueError, match=text):
            made.load(replace(request("process"), purpose=purpose), standing)


@pytest.mark.parametrize(
    ("failure", "error", "text"),
    [
        (Failure("", details="a.c:1: error: x"), CompileError, "a.c:1: error: x"),
        (Failure("loading", 1, "why"), KernelError, r"loading: EPERM \(Operation not permitted\); why"),
        (Failure("loading", 24), KernelError, r"loading: EMFILE \(Too many open files\); this process may not"),
    ],
)
def test_failures_have_the_words_of_whoever_failed(failure: Failure, error: type[Exception], text: str) -> None:
    with child(answering(failure)) as made:
        made.features()
        with pytest.raises(error, match=text):
            made.load(request("one", "two"), nothing_changes)


def test_a_crash_is_an_error_with_its_last_words() -> None:
    def serve(channel: Channel) -> None:
        print("clang: assertion failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)

    with child(serve) as made, pytest.raises(LoaderError, match=r"was ended by SIGABRT:\nclang: assertion failed$"):
        made.features()


def test_an_exception_in_the_child_is_no_second_agent() -> None:
    def serve(channel: Channel) -> None:
        raise ZeroDivisionError

    with child(serve) as made, pytest.raises(LoaderError, match=r"(?s)exited with status 1:.*ZeroDivisionError"):
        made.features()


def test_a_child_that_leaves_without_an_answer() -> None:
    with child(lambda _: None) as made, pytest.raises(LoaderError, match="exited with status 0$"):
        made.features()


def test_a_child_that_hangs_is_ended() -> None:
    def serve(channel: Channel) -> None:
        time.sleep(300)

    with child(serve, timeout_s=0.05) as made:
        with pytest.raises(LoaderError, match=r"gave no answer for 0\.05 s"):
            made.features()
        tgid = made._tgid
        assert exists(tgid)
    assert not exists(tgid)
    assert made._status == -signal.SIGKILL


def test_the_child_has_nothing_of_the_agents_and_no_ways_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_SOMEBODY", "x")
    kept = null()

    def serve(channel: Channel) -> None:
        own = sorted(int(each) for each in os.listdir("/proc/self/fd"))
        said: dict[str, Any] = {
            "open": len(own),
            "inherited": kept in own and kept != channel._socket.fileno() and os.path.exists(f"/proc/self/fd/{kept}"),
            "stdin": os.readlink("/proc/self/fd/0"),
            "environment": sorted(os.environ),
            "interrupt": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }
        channel.send({"features": {**Features().to_json(), "release": repr(said)}})

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with child(serve) as made:
            said = made.features().release
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(kept)
    assert "'inherited': False" in said
    assert "'stdin': '/dev/null'" in said
    assert "'environment': ['LANG', 'PATH']" in said
    assert "'interrupt': True" in said
    assert "'open': 5" in said  # three, the channel, and the listing
