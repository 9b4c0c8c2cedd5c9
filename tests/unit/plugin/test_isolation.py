"""Whatever a plugin raises, and however slow it is, the agent goes on."""

import errno
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from krie import Event, hookimpl
from krie.decision import merge
from krie.errors import ExitCode, KernelError
from krie.interruption import Interrupted
from krie.testing.events import build

from .example import Setting, Thing


class PanicError(BaseException):
    """As a library in another language raises."""


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


def raise_(error: BaseException) -> Any:
    raise error


@pytest.fixture
def handled() -> Iterator[None]:
    """Ctrl-C is handled, as in an agent that runs."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda: raise_(PanicError("no")), "PanicError: no"),
        (lambda: raise_(KeyboardInterrupt()), "KeyboardInterrupt: "),
        (lambda: raise_(GeneratorExit()), "GeneratorExit: "),
        (lambda: raise_(SystemExit(3)), "SystemExit: 3"),
        (recurse, "RecursionError: "),
        (lambda: bytearray(1 << 62), "MemoryError: "),
    ],
)
def test_nothing_that_a_plugin_raises_goes_further(setting: Setting, what: Callable[[], Any], told: str) -> None:
    plugins = setting.load(krie_enrich=hookimpl(lambda event: what()), krie_decided=hookimpl(lambda event: what()))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    (observe,) = plugins.observers()
    observe(build(Thing), merge([], tier="user", revision=""))
    assert [each.hook for each in setting.faults] == ["krie_enrich", "krie_decided"]
    assert all(each.error.startswith(told) for each in setting.faults)
    assert setting.load(krie_sensor=hookimpl(lambda: what())).degraded.keys() == {"example"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "no more"),
        KernelError("reading types", errno.EMFILE),
        ImportError("libx.so: cannot open shared object file: Too many open files"),
    ],
)
def test_what_is_used_up_is_no_fault_of_a_plugin(setting: Setting, error: Exception) -> None:
    with pytest.raises(KernelError) as raised:
        setting.load(krie_sensor=hookimpl(lambda: raise_(error)))
    assert raised.value.exit_code is ExitCode.EXHAUSTED
    assert setting.faults == []


def test_a_signal_ends_a_start(setting: Setting) -> None:
    with pytest.raises(Interrupted):
        setting.load(krie_sensor=hookimpl(lambda: raise_(Interrupted(signal.SIGTERM))))


def test_ctrl_c_ends_a_start(setting: Setting) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs this may ignore it, as `nohup` does
    try:
        with pytest.raises(KeyboardInterrupt):
            setting.load(krie_sensor=hookimpl(lambda: raise_(KeyboardInterrupt())))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("krie.plugin.watch.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("takes", "others", "between_s", "calls"),
    [
        (8.0, 0, 0, 4),  # until 30 s are exceeded
        (2.0, 50, 0, 16),  # however many it is quick for
        (0.5, 0, 0, 5),  # five in a row
        (3.0, 1, 0, 11),
        (0.5, 1, 30, 20),  # now and then
        (0.1, 0, 0, 20),
    ],
)
def test_who_is_slow_for_events_is_left_alone(
    setting: Setting, clock: list[float], takes: float, others: int, between_s: float, calls: int
) -> None:
    slow: list[Event] = []

    def decided(event: Thing) -> None:
        if event.value == 1:
            slow.append(event)
            clock[0] += takes

    (observe,) = (plugins := setting.load(krie_decided=hookimpl(decided))).observers()
    for _ in range(20):
        clock[0] += between_s
        for value in (1, *[0] * others):
            observe(build(Thing, value=value), merge([], tier="user", revision=""))
    assert len(slow) == calls
    assert plugins.degraded.keys() == ({"example"} if calls < 20 else set())
    if calls < 20:
        assert f"it took {takes} s for one event; 0.2 s are the most" in plugins.degraded["example"]


def test_a_scan_may_take_its_time(setting: Setting, clock: list[float]) -> None:
    def scan() -> tuple[Event, ...]:
        clock[0] += 9
        return ()

    plugins = setting.load(krie_scan=hookimpl(scan))
    for _ in range(9):
        assert list(plugins.scan(lambda event: event)) == []
    assert (plugins.degraded, clock[0]) == ({}, 81)
