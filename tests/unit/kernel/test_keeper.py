"""Who keeps kprobes when the agent has gone, as a process and as an object; without a kernel."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from krie.kernel.keeper import BREAKPOINT, CLOSE, END, HOLD, IDLE_SLOT, KEY, MESSAGE, TRAMPOLINE, Held, _Keeper
from krie.kernel.keeper import TRAP as TRAP_KIND
from krie.kernel.keeping import Keeper
from krie.kernel.switches import FTRACE_IS_OFF, Addresses
from krie.testing.patience import PATIENCE_S

from ..switched_kernel import ENABLED, FUNCTION, OTHER, TRAP, Events, Kernel


class Process:
    """A keeper, whose agent is a process of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = subprocess.Popen(["sleep", "1000"])
        self.read, self.write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        numbers = dict.fromkeys(("program", "answer", "state", "debugfs", "tracefs"), null)
        agent = os.pidfd_open(self.agent.pid)
        with monkeypatch.context() as context:
            context.setattr("os.pidfd_open", lambda _: agent)
            held = [Held(0, BREAKPOINT, TRAP, self.write)]
            others = {"answer_bytes": 16, "answer_at": 8, "kprobe_type": -1, "secret": 0, "agent_tgid": self.agent.pid}
            self.keeper = Keeper({**numbers, **others}, Addresses(), held)
        self.process, self.mine = self.keeper._process, self.keeper._socket
        self.mine.settimeout(PATIENCE_S)
        os.close(null)
        os.close(self.write)

    def tell(self, command: bytes, slot: int, descriptor: int = -1) -> None:
        message = MESSAGE.pack(command, BREAKPOINT.encode(), slot, 0)
        socket.send_fds(self.mine, [message], [descriptor] if descriptor >= 0 else [])

    def ask(self, command: bytes, slot: int) -> bytes:
        self.tell(command, slot)
        return self.mine.recv(100)

    def holds(self) -> bool:
        """The pipe's write end; nobody else has it."""
        os.set_blocking(self.read, False)
        try:
            return os.read(self.read, 1) != b""
        except BlockingIOError:
            return True


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(monkeypatch)
    yield made
    made.agent.kill()
    made.agent.wait()
    made.process.wait(PATIENCE_S)
    made.mine.close()
    os.close(made.read)


def test_the_process_ends_with_the_agent_and_not_before(process: Process) -> None:
    other, write = os.pipe()
    process.tell(HOLD, 1, write)
    os.close(write)
    assert process.ask(CLOSE, IDLE_SLOT) == b"idle closed"
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert process.ask(CLOSE, IDLE_SLOT) == b"idle closed"
    process.tell(HOLD, IDLE_SLOT, other)
    assert process.holds()
    assert Path(f"/proc/{process.process.pid}/comm").read_text() == "krie-keeper\n"
    process.mine.shutdown(socket.SHUT_RDWR)  # as if it were about to die
    time.sleep(0.1)
    assert process.holds()
    process.agent.kill()
    assert process.process.wait(PATIENCE_S) == 0
    assert not process.holds()
    assert os.read(other, 1) == b""
    os.close(other)


def test_the_process_lets_go_of_what_is_not_wanted_and_ends_when_it_is_asked(process: Process) -> None:
    other, write = os.pipe()
    process.tell(HOLD, IDLE_SLOT, write)
    os.close(write)
    process.keeper.close(0)
    process.keeper.close(7)  # which it never had
    while process.holds():
        time.sleep(0.01)
    assert process.ask(CLOSE, IDLE_SLOT) == b"idle closed"
    assert os.read(other, 1) == b""
    os.close(other)
    assert process.ask(END, 0) == b"done"
    assert process.process.wait(PATIENCE_S) == 0


def test_an_answer_that_came_too_late_is_not_taken_for_the_last_one(process: Process) -> None:
    process.process.send_signal(signal.SIGSTOP)
    process.mine.settimeout(0.01)
    with pytest.raises(TimeoutError):
        process.keeper.close_idle()
    process.tell(CLOSE, IDLE_SLOT)
    process.process.send_signal(signal.SIGCONT)
    assert process.keeper.end() == ""
    assert not process.holds()
    assert process.process.wait(PATIENCE_S) == 0


def test_an_answer_that_nobody_reads_ends_no_keeper(process: Process) -> None:
    """The rest of a socket pair whose other end closed with something in it says so once, by an error."""
    process.tell(CLOSE, IDLE_SLOT)
    assert process.mine.recv(1, socket.MSG_PEEK)
    process.mine.close()
    time.sleep(0.2)
    assert process.process.poll() is None
    assert process.holds()
    process.agent.kill()
    assert process.process.wait(PATIENCE_S) == 0
    assert not process.holds()


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_Keeper, Events, socket.socket]]:
    """A keeper in this process; it holds a trap."""
    events = Events()
    events.names = ["of the dead", events.name(TRAP)]
    monkeypatch.setattr("krie.kernel.keeper.Traps", lambda *_: events)
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = dict.fromkeys(("agent", "state", "program", "answer", "tracefs", "debugfs", "kprobe_type", "secret"), -1)
    others = {"socket": theirs.detach(), "state": 1 << 20, "answer_bytes": 16, "answer_at": 8, "agent_tgid": 1}
    held = [Held(0, TRAP_KIND, TRAP, os.open("/dev/null", os.O_RDONLY))]
    kept = _Keeper({**numbers, **others}, Addresses(), held)
    yield kept, events, mine
    assert kept._socket is not None
    kept._socket.close()
    mine.close()


def test_the_keeper_removes_events_once_nothing_of_them_is_left(
    keeping: tuple[_Keeper, Events, socket.socket],
) -> None:
    kept, events, _ = keeping
    assert kept._serve(MESSAGE.pack(CLOSE, b" ", 0, 0), [])
    assert kept._waits_ms() == 0
    events.why = "it breaks"
    kept._leave()
    assert events.names == ["of the dead", events.name(TRAP)]
    assert kept._waits_ms() == 1000
    events.why = ""
    kept._leave()
    assert events.names == []
    assert kept._waits_ms() is None


def test_the_keeper_answers_before_it_removes_the_next_one(keeping: tuple[_Keeper, Events, socket.socket]) -> None:
    """Each takes a while, and who asks has to decide something."""
    kept, events, mine = keeping
    assert kept._serve(MESSAGE.pack(CLOSE, b" ", 0, 0), [])
    mine.send(MESSAGE.pack(CLOSE, b" ", IDLE_SLOT, 0))
    kept._leave()
    assert events.names == ["of the dead", events.name(TRAP)]
    assert kept._waits_ms() == 1000
    assert kept._socket is not None
    assert kept._serve(kept._socket.recv(100), [])
    assert mine.recv(100) == b"idle closed"
    kept._leave()
    assert events.names == []


def test_the_keeper_lets_go_of_kprobes_at_once_and_of_others_one_by_one(
    keeping: tuple[_Keeper, Events, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events, mine = keeping
    places = [(BREAKPOINT, 0), (TRAMPOLINE, FUNCTION), (KEY, 0x100), (BREAKPOINT, 0), (TRAMPOLINE, FUNCTION)]
    kept._held |= {slot: Held(slot, kind, place, -slot) for slot, (kind, place) in enumerate(places, start=1)}
    done: list[str] = []

    def close(descriptors: Iterable[int]) -> None:
        done.append(f"{len(list(descriptors))} closed")

    def look(*_: object) -> str:
        done.append("look")
        return ""

    def agrees(_held: Held) -> bool:
        done.append("agrees")
        return done.count("agrees") != 2

    monkeypatch.setattr("krie.kernel.keeper.detach", close)
    monkeypatch.setattr(kept, "_look", look)
    monkeypatch.setattr(kept, "_agrees", agrees)
    kept._let_go(asked=True)
    one = ["look", "agrees", "1 closed"]
    assert done == ["look", "3 closed", *one, "look", "agrees", *one, *one, "look"]
    assert mine.recv(100) == b"done"
    assert events.names == ["of the dead"]


def test_the_keeper_waits_while_ftrace_is_off(
    keeping: tuple[_Keeper, Events, socket.socket], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, events, mine = keeping
    kept._switches = kernel.switch
    kernel.memory[TRAP] = b"\x55"
    kernel.turn_ftrace_off()

    def sleep(_seconds: float) -> None:
        assert list(kept._held) == [0]
        kernel.memory[ENABLED] = b"\1"

    monkeypatch.setattr("krie.kernel.keeper.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    monkeypatch.setattr("krie.kernel.keeper.kernel_log", lambda text: None)
    monkeypatch.setattr("krie.kernel.keeper.leave_service", lambda: None)
    kept._let_go(asked=True)
    assert mine.recv(100) == FTRACE_IS_OFF.encode()
    assert (kept._held, events.names) == ({}, ["of the dead"])


def test_the_keeper_ends_when_no_event_of_its_agent_is_left(
    keeping: tuple[_Keeper, Events, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those of which it was never told."""
    kept, events, mine = keeping
    events.names = [events.name(TRAP), events.name(OTHER)]
    events.why = "it breaks"
    tries: list[float] = []

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        events.why = ""

    monkeypatch.setattr("krie.kernel.keeper.time", SimpleNamespace(sleep=sleep))  # of no thread beside it
    monkeypatch.setattr("krie.kernel.keeper.kernel_log", lambda text: None)
    monkeypatch.setattr("krie.kernel.keeper.leave_service", lambda: None)
    kept._let_go(asked=True)
    assert mine.recv(100) == b"it breaks"
    assert (tries, events.names) == ([1.0], [])
