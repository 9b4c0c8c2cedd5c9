"""An OPA server that answers in time, but late: the agent's time is not spent on it for long.

A real one, seen through a proxy that holds its answers back.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from krie.config import OpaConfig
from krie.opa.server import Change, OpaServer
from krie.opa.waiting import WINDOW_S, Waiting
from krie.testing.patience import PATIENCE_S

from ..opa_servers import running
from .delegated import Setting, event, sources

FASTER = 5
"""How much faster the clock of these tests runs once the server decides: a window lasts two seconds."""
LATE_S = 0.25
PACE_S = 0.005
"""Between two events."""


class Clock:
    """Runs as fast as it is told."""

    def __init__(self) -> None:
        self._rate, self._real, self._shown = 1.0, time.monotonic(), 0.0

    def __call__(self) -> float:
        return self._shown + self._rate * (time.monotonic() - self._real)

    def run(self, rate: float) -> None:
        self._shown, self._real, self._rate = self(), time.monotonic(), rate


class Proxy:
    """Passes on what clients and a server say to each other; answers only after `late_s`."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self.late_s = 0.0
        self._port = port
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.url = f"http://127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._start(self._run)
        stack.callback(self._close)

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=run, args=arguments, daemon=True))
        self._threads[-1].start()

    def _close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._sockets[0].accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                self._start(self._pass, client, server, lambda: 0.0)
                self._start(self._pass, server, client, lambda: self.late_s)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, late_s: Callable[[], float]) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                time.sleep(late_s())
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def slow(tmp_path: Path, stack: ExitStack) -> tuple[Setting, Proxy]:
    return deciding(tmp_path, stack)


def deciding(folder: Path, stack: ExitStack, **config: Any) -> tuple[Setting, Proxy]:
    found = sources(folder / "rules")
    proxy = Proxy(stack.enter_context(running(folder, found)).port, stack)
    clock = Clock()
    setting = Setting(found, stack, clock, url=proxy.url, **config)
    setting.until_opa()
    setting.changes()
    clock.run(FASTER)
    return setting, proxy


def busy(setting: Setting, seconds: float, until: str = "") -> float:
    """Decide one event after the other; the share of the time that decisions by the server took."""
    now = begun = time.monotonic()
    spent = 0.0
    number = 0
    while now < begun + seconds:
        number += 1
        time.sleep(PACE_S)
        now = time.monotonic()
        engine = setting.decided(event(number % 50))
        before, now = now, time.monotonic()
        spent += now - before if engine == "opa" else 0.0
        if engine == until:
            return spent / (now - begun)
    assert not until, setting.server.to_json()
    return spent / seconds


def test_a_punctual_but_slow_server_gets_its_share_of_the_time(slow: tuple[Setting, Proxy]) -> None:
    setting, proxy = slow
    proxy.late_s = LATE_S
    busy(setting, PATIENCE_S, until="embedded")
    (change,) = setting.changes()
    assert change.engine == "embedded"
    assert re.match(
        r"it is slow: the agent waited for it for ([789]|\d\d+)\.\d of the last 10 s, more than 75 %", change.reason
    )
    assert setting.server.to_json()["waiting_percent"] > 60  # some of it has left the window
    # It is tried again and again, found to be as slow, and nobody waits for that, nor hears of it.
    assert busy(setting, 2 * WINDOW_S / FASTER) == 0.0
    assert setting.changes() == []
    assert setting.server.to_json()["waiting_percent"] == 0
    assert "it is still slow: an answer takes " in setting.server.to_json()["reason"]
    proxy.late_s = 0.0
    end = time.monotonic() + PATIENCE_S
    while setting.server.engine != "opa":
        assert time.monotonic() < end, setting.server.to_json()
        setting.server._due = 0.0  # the pause has grown, and grows again where a try that was slow ends only now
        busy(setting, 0.2)
    assert setting.changes() == [Change("opa", "")]
    busy(setting, 0.2)
    assert setting.changes() == []


def test_a_slow_server_is_asked_again_when_less_happens(slow: tuple[Setting, Proxy]) -> None:
    setting, proxy = slow
    proxy.late_s = LATE_S
    busy(setting, PATIENCE_S, until="embedded")
    setting.changes()
    end = time.monotonic() + PATIENCE_S
    while setting.server.engine != "opa":
        setting.server.look(setting.revision)
        assert time.monotonic() < end
        time.sleep(0.01)
    assert setting.changes() == [Change("opa", "")]
    for number in range(3):  # a fifth of the time
        assert setting.decided(event(number)) == "opa"
        time.sleep(4 * LATE_S)
    assert setting.changes() == []


def test_100_percent_is_no_limit(tmp_path: Path, stack: ExitStack) -> None:
    setting, proxy = deciding(tmp_path, stack, waiting_percent=100)
    proxy.late_s = LATE_S
    assert busy(setting, 2 * WINDOW_S / FASTER) > 0.75


def test_what_the_agent_does_meanwhile_is_no_waiting(slow: tuple[Setting, Proxy]) -> None:
    setting, proxy = slow
    proxy.late_s = LATE_S
    setting.server._meanwhile = lambda: time.sleep(LATE_S)  # the ring is full
    assert busy(setting, 2 * WINDOW_S / FASTER) > 0.75
    assert setting.changes() == []


def test_after_a_reload_it_is_tried_by_the_new_policy(slow: tuple[Setting, Proxy], tmp_path: Path) -> None:
    setting, proxy = slow
    proxy.late_s = LATE_S
    busy(setting, PATIENCE_S, until="embedded")
    setting.use(sources(tmp_path / "rules", 7))
    setting.server._due, setting.server._pause_s = 0.0, 0.001
    while "it decides by revision" not in setting.server.to_json()["reason"]:
        setting.server.look(setting.revision)
        time.sleep(0.005)


def test_the_window_slides() -> None:
    waiting = Waiting(20)
    waiting.note(100.0, 1, 1.5)
    assert not waiting.over(100.0)
    waiting.note(105.0, 1, 0.6)
    assert waiting.over(105.0)
    assert not waiting.over(110.0)
    assert waiting.queries == 1
    assert waiting.spent_s == pytest.approx(0.6)
    assert waiting.fits(110.0, 0.9)
    assert not waiting.fits(110.0, 1.1)
    assert waiting.spent_within(200.0) == 0.0
    assert Waiting(100).fits(0.0, 1e9)


def test_many_queries_take_little_memory() -> None:
    waiting = Waiting(20)
    for number in range(100_000):
        waiting.note(number / 1000, 1, 0.001)
    assert len(waiting._slots) < 60
    assert waiting.queries == pytest.approx(10_000, rel=0.03)


def test_time_that_passed_without_an_answer_counts(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that declines each time costs as much as one that answers."""
    now = [0.0]
    server = OpaServer(OpaConfig(url="http://127.0.0.1:9", waiting_percent=10), clock=lambda: now[0])
    stack.callback(server.close)

    def declines(*_: object) -> None:
        now[0] += 0.4

    monkeypatch.setattr(server, "_asked", declines)
    server._worker = server._forks.fork()
    server._up = True
    for _ in range(3):
        assert server.ask([((), "{}")], "r") is None
    assert server.engine == "embedded"
    assert "1.2 of the last 10 s" in server.changes[-1].reason
