"""Mistakes of plugins that would go unnoticed, or end the agent without a word."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import krie.plugin.manager
import pytest
from krie import U64, Action, Decision, Doc, Event, FiredRule, Sensor, hookimpl
from krie.config import Config
from krie.decision import merge
from krie.errors import ExitCode, KernelError, PluginError, UntrustedFileError
from krie.events.agent import OwnEvents
from krie.events.event import EventTypes
from krie.kernel.features import Features
from krie.plugin.isolation import PluginFault
from krie.plugin.manager import Plugins
from krie.processes.sensor import ProcessExit
from krie.testing.events import build


@dataclass(frozen=True, slots=True)
class Thing(Event):
    """An event of a plugin from outside."""

    KIND = 0x9001
    NAME = "example.thing"

    value: Annotated[U64, Doc("something")]


@dataclass(frozen=True, slots=True)
class Stranger(Event):
    """An event that the sensor does not list."""

    KIND = 0x9002
    NAME = "example.stranger"

    value: Annotated[U64, Doc("something")]


def krie_sensor() -> Sensor:
    return Sensor(name="example", version="1", events=(Thing,))


class Setting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[PluginFault] = []
        self._monkeypatch = monkeypatch

    def load(self, own: dict[str, Any] | None = None, **names: Any) -> Plugins:
        """Load a plugin whose module has these names and a sensor."""
        module = ModuleType("example_plugin")
        vars(module).update({"krie_sensor": hookimpl(krie_sensor), **names})
        return self.load_object(module, own)

    def load_object(self, plugin: object, own: dict[str, Any] | None = None) -> Plugins:
        module = ModuleType("example_holder")
        module.__dict__["plugin"] = plugin
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = EntryPoint("example", "example_holder:plugin", "krie")
        self._monkeypatch.setattr(krie.plugin.manager, "available", lambda: {"example": entry})
        return Plugins.load(Config(plugins={"example": own or {}}), "krie.toml", Features(), self.faults.append)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(monkeypatch)


def raising(**_: object) -> Any:
    raise RuntimeError("no")


def leaving(**_: object) -> Any:
    sys.exit(3)


def facts(kind: str) -> Mapping[str, Any]:
    return {"colour": {"type": "string"}}


def test_a_hook_without_its_mark_is_found(setting: Setting) -> None:
    assert setting.load(krie_scan=lambda: ()).degraded == {
        "example": "plugin example: krie_scan would never be called; write @krie.hookimpl above it"
    }


def test_a_module_whose_name_looks_like_a_hook_is_none(setting: Setting) -> None:
    assert setting.load(krie_helpers=ModuleType("krie_helpers")).degraded == {}


def test_a_misspelt_hook_of_an_object_is_found(setting: Setting) -> None:
    class Plugin:
        @hookimpl
        def krie_scann(self) -> None: ...

    assert setting.load_object(Plugin()).degraded == {
        "example": "plugin example: has no such hook: krie_scann; did you mean krie_scan?"
    }


def test_failing_to_take_a_baseline_degrades_at_once(setting: Setting) -> None:
    plugins = setting.load(krie_attached=hookimpl(lambda maps: raising()))
    plugins.attached(lambda name: None, None, lambda name: ())  # type: ignore[arg-type,return-value]
    assert plugins.degraded == {"example": "krie_attached failed: no"}
    assert [each.degraded for each in setting.faults] == [True]


def test_failing_to_take_a_baseline_ends_a_required_plugin(setting: Setting) -> None:
    plugins = setting.load({"required": True}, krie_attached=hookimpl(lambda maps: raising()))
    with pytest.raises(PluginError, match=r"krie_attached failed: no \(and it is required\)"):
        plugins.attached(lambda name: None, None, lambda name: ())  # type: ignore[arg-type,return-value]


def test_declared_facts_without_an_enricher_degrade(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts))
    assert plugins.enrichers() == {}
    assert plugins.degraded == {"example": "declares facts, but has no krie_enrich"}


def test_facts_of_another_type_are_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(lambda kind: ["colour"]))
    assert plugins.facts("example.thing") == {}
    assert "krie_facts returned ['colour'], not a mapping" in setting.faults[0].error


def test_a_scan_yields_the_plugins_own_events_only(setting: Setting) -> None:
    plugins = setting.load(krie_scan=hookimpl(lambda: [build(Stranger)]))
    assert list(plugins.scan(lambda event: event)) == []
    assert "krie_scan yielded Stranger, which is not among the sensor's events" in setting.faults[0].error


def test_a_scans_events_are_completed_as_the_agents_own(setting: Setting) -> None:
    own = OwnEvents(build(ProcessExit, tgid=77), EventTypes([Thing]))
    plugins = setting.load(krie_scan=hookimpl(lambda: [Thing.without_header(value=n) for n in (5, 6)]))
    first, second = plugins.scan(own.complete)
    assert isinstance(first, Thing)
    assert isinstance(second, Thing)
    assert (first.value, second.value, first.seq, second.seq) == (5, 6, 0, 1)
    assert (first.kind, first.tgid) == (Thing.KIND, 77)
    assert 0 < first.time <= second.time


def test_a_value_that_its_field_cannot_hold_is_a_fault(setting: Setting) -> None:
    own = OwnEvents(build(ProcessExit), EventTypes([Thing]))
    plugins = setting.load(krie_scan=hookimpl(lambda: [Thing.without_header(value=-1)]))
    assert list(plugins.scan(own.complete)) == []
    assert setting.faults[0].hook == "krie_scan"


@pytest.mark.parametrize("value", [b"red", {"red"}, float("nan"), [object()], {1: "red"}])
def test_a_fact_that_is_no_json_is_a_fault(setting: Setting, value: object) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert "which is no JSON" in setting.faults[0].error


def test_leaving_in_a_sensor_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_sensor=hookimpl(lambda: leaving()))
    assert plugins.degraded == {"example": "SystemExit: 3"}


def test_leaving_in_a_hook_is_a_fault(setting: Setting) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: leaving()))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert setting.faults[0].error == "SystemExit: 3"


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


def test_ctrl_c_ends_a_start(setting: Setting) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs this may ignore it, as `nohup` does
    try:
        with pytest.raises(KeyboardInterrupt):
            setting.load(krie_sensor=hookimpl(lambda: raise_(KeyboardInterrupt())))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (10**5000, "is no JSON"),
        (-(1 << 64), "is no JSON"),
        ("\ud800", "surrogates not allowed"),
        ("x" * 100_000, "more than 64 KiB of facts"),
        ([0] * 10_000, "more than 64 KiB of facts"),
    ],
    ids=["wide", "low", "surrogate", "long", "many"],
)
def test_a_fact_that_the_journal_cannot_hold_is_a_fault(setting: Setting, value: object, problem: str) -> None:
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert problem in setting.faults[0].error


def test_a_fact_that_is_nested_without_end_is_a_fault(setting: Setting) -> None:
    value: list[object] = []
    value.append(value)
    plugins = setting.load(krie_facts=hookimpl(facts), krie_enrich=hookimpl(lambda event: {"colour": value}))
    assert plugins.enrichers()["example.thing"](build(Thing)) == {}
    assert setting.faults[0].error.startswith("RecursionError")


@pytest.mark.parametrize("answer", [5, b"done", ["x"]])
def test_a_restoration_answers_with_a_text_or_none(setting: Setting, answer: object) -> None:
    restore = setting.load(krie_restore=hookimpl(lambda event: answer)).restorer("example")
    assert restore is not None
    assert restore(build(Thing)) == "the plugin failed; see its event"
    assert "krie_restore returned" in setting.faults[0].error


def test_a_scan_without_end_is_given_up(setting: Setting) -> None:
    def endless() -> Iterator[Event]:
        while True:
            yield Thing.without_header(value=1)

    plugins = setting.load(krie_scan=hookimpl(endless))
    assert list(plugins.scan(lambda event: event)) == []
    assert "krie_scan yielded more than 10000 events" in setting.faults[0].error


def spoil(event: Thing, decision: Decision) -> None:
    object.__setattr__(event, "value", 666)
    for shared in (decision, *decision.rules):
        for name in ("action", "scope"):
            with pytest.raises(AttributeError):
                object.__setattr__(shared, name, None)


def test_no_plugin_changes_what_others_see(setting: Setting) -> None:
    """A decision is remembered, and answers many events."""
    (observe,) = setting.load(krie_decided=hookimpl(spoil)).observers()
    event = build(Thing, value=5)
    decision = merge([FiredRule("T1", Action.KILL)], tier="user", revision="r")
    observe(event, decision)
    assert setting.faults == []
    assert event == build(Thing, value=5)
    assert decision == merge([FiredRule("T1", Action.KILL)], tier="user", revision="r")


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


AGENT = """
import os, signal, sys, time
from krie.plugin.isolation import Isolation
faults = []
guard = Isolation(lambda fault: faults.append(fault.error))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT):
    signal.signal(number, lambda *_: None)
guard.watch.start()

def call(function, hook="krie_decided"):
    return guard.call("bad", hook, "failed", function)

def handlers():
    return [signal.getsignal(number).__name__ for number in (signal.SIGTERM, signal.SIGALRM)]
"""


def in_an_agent(code: str) -> list[str]:
    """What code says that calls a plugin's functions as an agent does, in a process of its own."""
    done = subprocess.run([sys.executable, "-I", "-c", AGENT + code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_handler_of_signals_is_put_back() -> None:
    said = in_an_agent(
        "call(lambda: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGALRM)])\n"
        "print(faults, *handlers())"
    )
    assert said == [
        "['MisbehavedError: it changed how SIGTERM is handled, which was put back'] <lambda> _interrupt",
    ]


def test_who_hangs_is_interrupted() -> None:
    said = in_an_agent(
        "import krie.plugin.watch\n"
        "krie.plugin.watch._INTERRUPTED_AFTER_S['krie_decided'] = 0.5\n"
        "def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(100)\n"
        "        except Exception:\n"
        "            pass\n"
        "print(call(stubborn), faults)\n"
        "def busy():\n"
        "    while True: pass\n"
        "print(call(busy), len(faults))"
    )
    assert said[0].startswith("failed ['OverdueError: it was interrupted after ")
    assert said[1] == "failed 1"


def test_a_forked_process_does_not_go_on_as_an_agent() -> None:
    said = in_an_agent(
        "tgid = os.getpid()\n"
        "child = call(os.fork)\n"
        "print('returned', flush=True)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "print(child > 0, os.getpid() == tgid, status, faults, flush=True)\n"
        "def fork_and_raise():\n"
        "    if not os.fork(): raise ValueError\n"
        "call(fork_and_raise)\n"
        "print('returned', flush=True)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), faults)\n"
    )
    assert said == ["returned", "True True 1 []", "returned", "1 []"]


OUTPUT = """
import os
from krie.agent.main import _own_output
journal = _own_output()
print("a plugin", flush=True)
os.system("echo its shell")
os.close(1)
os.system("echo what it starts then")
os.write(journal, b"a line\\n")
"""


def test_what_a_plugin_prints_or_closes_is_not_the_journals_output() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", OUTPUT], capture_output=True, text=True, check=True)
    assert done.stdout == "a line\n"
    assert done.stderr.startswith("a plugin\nits shell\n")


THREAD = """
import runpy, sys, threading, time
threading.Thread(target=time.sleep, args=(10_000,)).start()
sys.argv = ["krie-agent", "--config=none"]
runpy.run_module("krie.agent", run_name="__main__")
"""


def test_threads_of_a_plugin_are_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", THREAD], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "krie: none: cannot be read: No such file or directory\n")


def test_a_package_that_others_could_change_is_not_imported(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    package = tmp_path / "loose_package"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "plugin.py", "deep/__init__.py"):
        (package / name).write_text("raise AssertionError('imported')\n")
    (package / "deep/__init__.py").chmod(0o666)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("example", "loose_package.plugin", "krie")
    monkeypatch.setattr(krie.plugin.manager, "available", lambda: {"example": entry})
    with pytest.raises(UntrustedFileError, match=r"deep/__init__.py: can be changed by other users"):
        Plugins.load(Config(plugins={"example": {}}), "krie.toml", Features(), setting.faults.append)
