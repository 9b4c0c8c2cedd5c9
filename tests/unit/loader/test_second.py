"""What the loader attached has a second holder, whoever of both is killed; without a kernel."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from krie.errors import LoaderError
from krie.kernel.features import Features
from krie.kernel.keeper import IGNORED, TRAMPOLINE, Held
from krie.loader import holding, launcher, second
from krie.loader.channel import Channel, ChannelClosed
from krie.loader.launcher import LoaderProcess
from krie.loader.messages import Loaded, Request
from krie.loader.second import Second
from krie.testing.patience import PATIENCE_S, wait_for

STANDING: Mapping[tuple[str, str, int], tuple[str, int]] = {("lsm", "bpf", 0): (TRAMPOLINE, 0x10)}
REQUEST = Request((), 16, False, switches=(1, 2, 3))


@pytest.fixture(autouse=True)
def leaves_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Is there once some process has done so."""
    left = tmp_path / "left its service"
    monkeypatch.setattr(second, "leave_service", left.touch)
    return left


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading end sees the end of the last holder of the other one."""
    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield out, into
    for each in (out, into):
        with suppress(OSError):
            os.close(each)


def is_held(out: int) -> bool:
    try:
        return os.read(out, 1) != b""
    except BlockingIOError:
        return True


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def loader(serve: Callable[[socket.socket], None], link: int, *others: int) -> LoaderProcess:
    """One that is given the only descriptor for what it attaches, and others."""
    made = LoaderProcess(PATIENCE_S, serve)
    made._channel.send({}, [link, *others])
    os.close(link)
    return made


def attaching(channel: Channel) -> list[int]:
    """Up to the first program that is attached; returns what holds it, and what else it was given."""
    link, *others = channel.receive()[1]
    channel.send({"features": Features().to_json()})
    channel.receive()
    channel.send({"attaching": True}, [null()])
    ((*place, kind, address),) = channel.receive()[0]["attach"]
    assert {tuple(place): (kind, address)} == STANDING
    channel.send({"attached": [kind, address], "links": [link]}, [link])
    return [link, *others]


def test_a_loader_that_is_killed_leaves_what_it_attached_to_a_process_of_its_own(
    pipe: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves_service: Path
) -> None:
    """Which is not of the agent's service any more when the agent may end."""
    out, into = pipe
    safe = tmp_path / "safe"

    def serve(sock: socket.socket) -> None:
        attaching(Channel(sock))
        os.kill(os.getpid(), signal.SIGKILL)

    def let_go(held: list[Held], switches: list[int], _state: int) -> None:
        assert switches == [1, 2, 3]
        ((_, kind, address, link),) = held
        assert (kind, address) == (TRAMPOLINE, 0x10)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        (tmp_path / "holds").touch()
        wait_for(safe.exists)
        os.close(link)

    monkeypatch.setattr(second, "let_go_safely", let_go)
    monkeypatch.setattr(launcher, "_LETS_GO_WITHIN_S", 0.01)
    with loader(serve, into) as made:
        made.features()
        with pytest.raises(LoaderError, match="was ended by SIGKILL"):
            made.load(REQUEST, lambda: STANDING)
        assert leaves_service.exists()
    wait_for((tmp_path / "holds").exists)
    assert is_held(out)
    safe.touch()
    wait_for(lambda: not is_held(out))
    os.waitpid(-1, 0)


def test_where_no_process_can_be_started_the_agent_ends_it_itself(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, into = pipe
    held: list[Held] = []

    def serve(sock: socket.socket) -> None:
        attaching(Channel(sock))

    def no_fork() -> int:
        raise BlockingIOError

    def let_go(what: list[Held], _switches: tuple[int, ...], _state: int) -> None:
        held.extend(what)
        for each in what:
            os.close(each.descriptor)

    monkeypatch.setattr(second, "let_go_safely", let_go)
    with loader(serve, into) as made:
        monkeypatch.setattr(os, "fork", no_fork)
        made.features()
        with pytest.raises(LoaderError, match="exited with status 0"):
            made.load(REQUEST, lambda: STANDING)
    assert [each[1:3] for each in held] == [(TRAMPOLINE, 0x10)]
    assert not is_held(out)


def test_what_the_loader_lets_go_of_and_what_its_answer_brings_the_agent_does_not_hold(pipe: tuple[int, int]) -> None:
    out, into = pipe

    def serve(sock: socket.socket) -> None:
        channel = Channel(sock)
        link, end = attaching(channel)
        channel.send({"released": [link]})
        channel.receive()
        os.close(link)
        assert not is_held(end)  # the agent had closed it before it answered
        other = null()
        channel.send({"attached": [TRAMPOLINE, 0x20], "links": [other]}, [other])
        answer = Loaded(("link:p",), ("p",), (), (), {}, {}, ("p",), ())
        channel.send({"loaded": answer.to_json(), "timings": []}, [other])
        with suppress(ChannelClosed):
            channel.receive()

    before = len(os.listdir("/proc/self/fd"))
    with loader(serve, into, out) as made:
        made.features()
        found = made.load(REQUEST, lambda: STANDING)
        assert not is_held(out)
    found.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # the pipe's end


def test_a_loader_that_the_agent_does_not_wait_for_any_more_attaches_nothing(tmp_path: Path) -> None:
    """It would be ended by SIGKILL a moment later."""

    def serve(sock: socket.socket) -> None:
        channel = Channel(sock)
        channel.send({"features": Features().to_json()})
        channel.receive()
        wait_for((tmp_path / "too late").exists)
        channel.send({"attaching": True}, [null()])
        with suppress(ChannelClosed):
            channel.receive()
            (tmp_path / "attached").touch()

    with LoaderProcess(0.05, serve) as made:
        made._channel._socket.settimeout(PATIENCE_S)
        made.features()
        made._channel._socket.settimeout(0.05)
        with pytest.raises(LoaderError, match="gave no answer"):
            made.load(REQUEST, lambda: STANDING)
        (tmp_path / "too late").touch()
        assert not made.attaches
    assert not (tmp_path / "attached").exists()


def test_memory_that_cannot_be_read_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter((OSError, MemoryError, None))
    ended: list[object] = []

    def open_switches(_places: object) -> object:
        if (error := next(made)) is not None:
            raise error
        return "switches"

    monkeypatch.setattr(holding, "_open_switches", open_switches)
    monkeypatch.setattr(holding, "time", type("", (), {"sleep": staticmethod(lambda _: None)}))
    monkeypatch.setattr(holding, "let_go", lambda *given: ended.append(given))
    said: list[str] = []
    monkeypatch.setattr(holding, "kernel_log", said.append)
    monkeypatch.setattr(holding, "leave_service", lambda: said.append("left"))
    holding.let_go_safely([], (), -1)
    assert ended == [([], "switches", -1)]
    assert [each.rpartition("removed: ")[2] for each in said] == ["OSError: ", "left", "MemoryError: ", "left"]


def test_a_failed_look_takes_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_memory(stack: ExitStack) -> tuple[object, int]:
        descriptor = null()
        stack.callback(os.close, descriptor)
        return SimpleNamespace(read=None), descriptor

    def kprobe_type() -> int:
        raise OSError("no room")

    monkeypatch.setattr(holding, "open_memory", open_memory)
    monkeypatch.setattr(holding, "open_debugfs", null)
    monkeypatch.setattr(holding, "kprobe_type", kprobe_type)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="no room"):
            holding._open_switches((1, 2, 3))
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_took_over_ends_it_also_where_the_agent_is_killed_meanwhile(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, into = pipe
    mine, theirs = socket.socketpair()
    held = Second((1, 2, 3), STANDING)
    held.begin(null())
    held.note(TRAMPOLINE, 0x10, {5: into})
    handing = Channel(mine)
    handing.send({"switches": [1, 2, 3], "held": [[5, TRAMPOLINE, 0x10]]}, [held._state, into])
    mine.close()
    ended: list[Held] = []
    monkeypatch.setattr(second, "let_go_safely", lambda what, *_: ended.extend(what))
    handlers = {each: signal.getsignal(each) for each in IGNORED}
    with theirs:
        second.keep(theirs)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    held.end()
    assert [each[:3] for each in ended] == [(5, TRAMPOLINE, 0x10)]
    assert is_held(out)
    os.close(ended[0].descriptor)
    assert not is_held(out)


def test_where_the_loader_lives_the_agent_waits_for_nothing(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds all of it; whoever lowered the agent's limits does not have the agent wait for room."""
    out, into = pipe

    def serve(sock: socket.socket) -> None:
        channel = Channel(sock)
        attaching(channel)
        with suppress(ChannelClosed):
            channel.receive()

    def no_fork() -> int:
        raise BlockingIOError

    def let_go(*_: object) -> None:
        pytest.fail("the agent ends what the loader holds")

    monkeypatch.setattr(second, "let_go_safely", let_go)
    with loader(serve, into) as made:
        monkeypatch.setattr(os, "fork", no_fork)
        made.features()
        made._channel._socket.settimeout(0.5)
        with pytest.raises(LoaderError, match="gave no answer"):
            made.load(REQUEST, lambda: STANDING)
        assert is_held(out)
    assert not is_held(out)
