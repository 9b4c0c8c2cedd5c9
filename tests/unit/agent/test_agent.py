"""One agent with everything but the kernel: what it does from its start to its end, and in which order."""

import contextlib
import errno
import importlib
import io
import json
import logging
import os
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from krie import Alternative, AttachType, KernelError, Probe, Program, Sensor
from krie.agent.admin import ask
from krie.agent.agent import Agent
from krie.agent.inbox import Inbox
from krie.agent.journal import LOOK_S
from krie.agent.loading import Armed
from krie.agent.main import main
from krie.agent.missed import MissedRuns
from krie.agent.presence import Presence
from krie.agent.sending import Sending
from krie.config import Config
from krie.errors import ConfigError, ExitCode, PluginError
from krie.events.event import Event
from krie.kernel.maps import possible_cpus
from krie.kernel.ring import Ring
from krie.kernel.run_statistics import RunStatistics
from krie.plugin.isolation import Isolation, PluginFault
from krie.plugin.manager import Plugins
from krie.plugin.report import ProbeReport
from krie.processes.peer import Peer
from krie.processes.sensor import process_sensor
from krie.testing.events import build, encode
from krie.testing.fakes import FakeMap, fake_maps
from krie.testing.patience import PATIENCE_S

from ...policy.test_classify import Sample
from ..kernel_side import KernelSide, armed

RULE = """package krie.site

rules contains {"id": "%s", "action": "log"} if input.event.kind == "sample.seen"
"""
PROGRAM = Program(AttachType.LSM, "file_open", "sample_x")
WAY = Alternative("lsm", (PROGRAM,))
BATCH = 4


class Counts(FakeMap):
    """The per-CPU counts of attempts and losses, by slot of the kind."""

    def array(self) -> Iterator[bytes]:
        for slot in range(self.entries):
            value = self.content.get(struct.pack("=I", slot), bytes(32))
            yield value + bytes(32 * (possible_cpus() - 1))


class Records:
    """A ring with records in it."""

    batch, most_batches = BATCH, 3

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.closed = False
        self.reads = 0
        self.on_read: Callable[[], object] = list
        self._wake = os.eventfd(0)

    def read(self) -> list[bytes]:
        self.reads += 1
        self.on_read()
        return [self.waiting.popleft() for _ in range(min(BATCH, len(self.waiting)))]

    def wait_on(self, poll: Any) -> None:
        poll.register(self._wake)

    def close(self) -> None:
        self.closed = True
        os.close(self._wake)


class Probes:
    """States that are told at the next check."""

    def __init__(self, *reports: ProbeReport) -> None:
        self.reports = list(reports)
        self.changed: list[ProbeReport] = []
        self.raised: dict[str, str] = {}

    def check(self) -> list[ProbeReport]:
        changed, self.changed = self.changed, []
        for each in changed:
            self.reports = [each if each.name == old.name else old for old in self.reports]
        return changed


class Setting:
    """What an agent needs, in folders of its own; `start` starts one."""

    def __init__(self, folder: Path, *reports: ProbeReport, **more: object) -> None:
        self.folder = folder
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.rule("R1")
        self.config = Config.model_validate(
            {
                "agent": {
                    "run_dir": str(folder / "run"),
                    "state_dir": str(folder / "state"),
                    "cache_dir": "",
                    "processes": 4096,
                },
                "journal": {"path": str(folder / "journal.jsonl")},
                "policy": {"paths": (str(self.policies),)},
                "executables": {"tool": str(self.policies / "site.rego")},
            }
        )
        self.ring, self.kernel = Records(), KernelSide()
        self.probes = Probes(*reports)
        self.faults: list[PluginFault] = []
        self.stuck: dict[str, str] = {}
        self.detached = False
        self.plugins = Plugins(Isolation(lambda fault: self.fault(fault)))
        self.more = more
        self.stack = ExitStack()

    def rule(self, name: str) -> None:
        (self.policies / "site.rego").write_text(RULE % name)

    def fault(self, fault: PluginFault) -> None:
        """As the plugins' guard tells it."""
        self._report(fault)

    def load(self, config: Config, place: str, report: Any, stack: ExitStack, *, contain: bool) -> Armed:
        self._report = report
        stack.callback(lambda: setattr(self, "detached", True))
        sensors = (process_sensor(), Sensor("sample", "1", events=(Sample,)))
        base = armed(self.kernel, *sensors, modes={})
        self.counts = Counts("krie_counts", value_bytes=32, entries=len(base.loaded.loaded.kinds), indexed=True)
        maps = fake_maps(
            **{name: cast("FakeMap", each) for name, each in self.kernel.maps.items()},
            krie_counts=self.counts,
            krie_ring=FakeMap("krie_ring"),
            krie_limits=FakeMap("krie_limits", value_bytes=56),
            krie_importance=FakeMap("krie_importance", value_bytes=4),
            krie_budgets=FakeMap("krie_budgets", key_bytes=8, value_bytes=24),
        )
        parts: dict[str, object] = {
            "maps": maps,
            "probes": self.probes,
            "plugins": self.plugins,
            "memory": None,
            "roaming": SimpleNamespace(traps=lambda plugin: (), move=lambda: self.stuck),
            "programs": dict,
            "sending": Sending(maps, 77),
        }
        made = SimpleNamespace(**{**vars(base), **parts, **self.more})
        made.sending.stop()
        made.levers = lambda: Armed.levers(cast("Armed", made))
        return cast("Armed", made)

    def start(self) -> Agent:
        return Agent(
            self.config,
            "krie.toml",
            self.stack,
            output=None,
            load=self.load,
            new_ring=lambda _: cast("Ring", self.ring),
        )

    def happens(self, count: int = 1, **fields: object) -> None:
        """A program sends records."""
        for _ in range(count):
            self.sent(1, 0)
            self.ring.waiting.append(encode(build(Sample, **fields)))

    def sent(self, attempts: int, lost: int, alike: int = 0, over: int = 0) -> None:
        """A program counted them."""
        slot = struct.pack("=I", self.counts.entries - 1)
        before = struct.unpack("=4Q", self.counts.content.get(slot, bytes(32)))
        counted = zip(before, (attempts, lost, alike, over), strict=True)
        self.counts.content[slot] = struct.pack("=4Q", *(one + other for one, other in counted))

    def journal(self, agent: Agent) -> list[dict[str, Any]]:
        """Everything that was journaled; the agent writes nothing after that."""
        for each in agent._writers.all:
            each.close()
        return [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]

    @property
    def sends(self) -> bool:
        """Whether programs may send records."""
        return bool(struct.unpack("=II", self.kernel.content["krie_agent"][bytes(4)])[1])


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(each) for each in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    with made.stack:
        yield made
    assert made.ring.closed
    assert made.detached


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [each["kind"] for each in lines]


def probe(state: str, *, required: bool = False) -> ProbeReport:
    chosen = WAY if state != "missing" else None
    return ProbeReport("sample", Probe("x", Sample, (WAY,), required=required), chosen, state, {"lsm": "EPERM"})


def test_a_start_an_event_and_an_end(setting: Setting) -> None:
    agent = setting.start()
    assert setting.sends
    setting.happens(name="kernel/x")
    assert agent.run(0) == "0 s are over"
    agent.finish()
    assert not setting.sends
    lines = setting.journal(agent)
    assert kinds(lines) == ["krie.started", "sample.seen", "krie.stopped"]
    assert [each["id"] for each in lines[1]["decision"]["rules"]] == ["R1"]
    assert lines[2]["event"]["reason"] == "0 s are over"
    assert [line["seq"] for line in lines] == [1, 2, 3]


def test_only_one_agent_runs(setting: Setting, tmp_path: Path) -> None:
    setting.start()
    (tmp_path / "other").mkdir()
    other = Setting(tmp_path / "other")
    other.config = setting.config
    with pytest.raises(Exception, match=str(os.getpid())), other.stack:
        other.start()
    other.ring.close()


def test_what_went_before_a_failed_start_is_undone(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    (setting.policies / "broken.rego").write_text("package")
    with pytest.raises(Exception, match=r"broken\.rego"), setting.stack:
        setting.start()
    assert setting.detached
    (setting.policies / "broken.rego").unlink()
    with setting.stack:
        setting.start()  # nobody holds the lock


@pytest.mark.parametrize("state", ["missing", "silent"])
def test_a_required_probe_that_does_not_work_ends_the_start(tmp_path: Path, state: str) -> None:
    setting = Setting(tmp_path, probe(state, required=True))
    with pytest.raises(PluginError, match=f"probe x is {state} and required"), setting.stack:
        setting.start()
    assert setting.detached


@pytest.mark.parametrize("state", ["alive", "attached"])
def test_a_required_probe_that_works_is_told(tmp_path: Path, state: str) -> None:
    setting = Setting(tmp_path, probe(state, required=True))
    with setting.stack:
        lines = setting.journal(setting.start())
    assert kinds(lines) == ["krie.probe", "krie.started"]
    assert lines[0]["event"]["state"] == state


def test_a_probe_that_falls_silent_later_is_told_and_policies_know(tmp_path: Path) -> None:
    setting = Setting(tmp_path, probe("alive"))
    with setting.stack:
        agent = setting.start()
        assert agent._bus.health["probes_not_alive"] == []
        setting.probes.changed = [probe("silent")]
        agent._upkeep.check()
        assert agent._bus.health["probes_not_alive"] == ["sample.x"]
        (told,) = [each for each in setting.journal(agent)[2:] if each["kind"] == "krie.probe"]
    assert told["event"]["state"] == "silent"


def test_a_required_probe_that_is_silenced_later_does_not_end_the_agent(tmp_path: Path) -> None:
    """Or whoever silenced it would have finished."""
    setting = Setting(tmp_path, probe("alive", required=True))
    with setting.stack:
        agent = setting.start()
        setting.probes.changed = [probe("silent", required=True)]
        agent._upkeep.check()
        assert agent.run(0) == "0 s are over"
        told = [each["event"]["state"] for each in setting.journal(agent) if each["kind"] == "krie.probe"]
    assert told == ["alive", "silent"]


def test_silenced_probes_are_looked_at_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path, probe("alive"))
    clock = [1000.0]
    monkeypatch.setattr("krie.agent.probe_watch.time.monotonic", lambda: clock[0])
    with setting.stack:
        agent = setting.start()
        rearmed: list[float] = []
        monkeypatch.setattr(agent._enforcing.guarding, "rearm", lambda: rearmed.append(clock[0]))
        setting.probes.changed = [probe("silent")]
        agent._upkeep.check()
        for _ in range(40):
            clock[0] += 1
            agent._upkeep.beat()
        assert rearmed == [1000, 1002, 1006, 1014, 1030]
        setting.probes.changed = [probe("alive")]
        agent._upkeep.check()
        clock[0] += 100
        agent._upkeep.beat()
        assert len(rearmed) == 5


def test_work_that_fails_is_told_and_the_agent_goes_on(setting: Setting) -> None:
    agent = setting.start()

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    setting.ring.on_read = refuse
    agent.run(0)
    setting.ring.on_read = list
    agent._upkeep.beat()
    (told,) = [each for each in setting.journal(agent) if each["kind"] == "krie.trouble"]
    assert (told["event"]["work"], told["event"]["count"]) == ("records", 1)


def test_a_full_batch_is_a_backlog_and_no_loss(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(BATCH + 1)
    assert agent._inbox.drain()
    agent._news.tell()
    agent._news.tell()
    assert agent._status.to_json()["backlog"]
    assert not agent._inbox.drain()
    agent._news.tell()
    assert agent._losses.total == 0


def test_plugins_see_a_switch_before_it_is_put_right(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    off = iter([True, False, False, True])

    def put_right() -> list[object]:
        order.append("put right")
        return []

    def scan(_complete: object) -> list[object]:
        order.append("scan")
        return []

    setting.more["ground"] = SimpleNamespace(turned_off=lambda: next(off, False), tick=put_right)
    monkeypatch.setattr(setting.plugins, "scan", scan)
    agent = setting.start()  # which ticks
    agent._news.tell()
    agent._upkeep.roam()
    agent._upkeep.roam()
    assert order == ["scan", "put right", "put right", "scan"]


def test_what_never_came_is_a_loss_that_policies_know(setting: Setting) -> None:
    agent = setting.start()
    setting.sent(attempts=5, lost=2)
    agent._inbox.drain()
    agent._news.tell()
    agent._news.tell()
    assert agent._bus.health["lost"] == 5
    told = [(each["event"]["cause"], each["event"]["count"]) for each in setting.journal(agent)[1:]]
    assert told == [("ring_full", 2), ("missing", 3)]


def test_at_the_end_all_that_is_in_the_ring_is_taken_and_the_last_loss_told(setting: Setting) -> None:
    agent = setting.start()
    agent._signals.stop("SIGTERM")
    setting.happens(3 * BATCH)
    setting.sent(attempts=1, lost=0)  # and never comes
    agent.finish()
    lines = setting.journal(agent)
    assert kinds(lines) == ["krie.started", *["sample.seen"] * 12, "krie.loss", "krie.stopped"]
    assert (lines[-1]["event"]["events"], lines[-1]["event"]["lost"]) == (14, 1)


def ends_once_a_line_says(agent: Agent, journal: Path, kind: str, *, signals: tuple[signal.Signals, ...] = ()) -> None:
    """Take the journal's file away while the agent runs, send it these signals, and end it when it tells that."""
    moved = journal.with_name("taken")

    def take() -> None:
        while not journal.read_bytes():
            time.sleep(0.01)
        journal.rename(moved)
        for number in signals:
            os.kill(os.getpid(), number)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not (journal.exists() and kind in journal.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    taker = threading.Thread(target=take)
    taker.start()
    assert agent.run(2 * PATIENCE_S) == "SIGTERM"
    taker.join()
    agent.finish()


def test_a_journal_that_is_taken_away_is_told_in_the_new_one(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    assert LOOK_S < 1
    agent = setting.start()
    path = setting.folder / "journal.jsonl"
    ends_once_a_line_says(agent, path, "krie.journal")
    told, stopped = setting.journal(agent)
    assert (told["kind"], stopped["kind"]) == ("krie.journal", "krie.stopped")
    lines = told["event"]["lines"]  # such as that a busy machine held the agent up
    assert told["event"] == {"lines": lines, "bytes": 0, "path": str(path), "detail": "", "state": "moved"}
    assert f"journal {path}: moved; {lines} lines went elsewhere" in caplog.text


def test_sighup_opens_the_journal_anew(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.agent.journal.LOOK_S", 10 * PATIENCE_S)  # nobody looks
    agent = setting.start()
    ends_once_a_line_says(agent, setting.folder / "journal.jsonl", "krie.journal", signals=(signal.SIGHUP,))
    assert kinds(setting.journal(agent))[0] == "krie.journal"


def test_the_file_for_what_matters_is_watched_too(setting: Setting) -> None:
    agent = setting.start()
    setting.probes.changed = [probe("silent")]  # severe: it is in both files
    agent._upkeep.check()
    important = setting.folder / "journal.important.jsonl"
    ends_once_a_line_says(agent, important, "krie.journal")
    (told,) = (json.loads(line) for line in important.read_text().splitlines())
    assert (told["event"]["state"], told["event"]["path"]) == ("moved", str(important))
    assert "krie.journal" in kinds(setting.journal(agent))


def test_the_fault_of_a_plugin_is_told_at_the_next_tick(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    setting.fault(PluginFault("sample", "krie_scan", "OSError: gone", "Traceback", False))
    (told,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert (told.getMessage(), vars(told)["details"]) == ("plugin sample, krie_scan: OSError: gone", "Traceback")
    agent._news.tell()
    agent._news.tell()
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.plugin"]


def test_a_changed_policy_judges_only_what_comes_after(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(2)
    setting.rule("R2")
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    setting.happens(1)
    agent._inbox.drain()
    agent._reload.look_for_changes()  # and not again
    assert not agent._policy_files.loading
    lines = setting.journal(agent)[1:]
    fired = [rule["id"] for each in lines for rule in each["decision"]["rules"] if rule["id"][0] == "R"]
    assert kinds(lines) == ["sample.seen", "sample.seen", "krie.policy", "sample.seen"]
    assert fired == ["R1", "R1", "R2"]


def test_programs_know_what_matters_to_the_policy_in_force(setting: Setting) -> None:
    agent = setting.start()
    slot = struct.pack("=I", setting.counts.entries - 1)
    importance = agent._armed.maps["krie_importance"]
    assert importance.get(slot) == bytes(4)
    (setting.policies / "site.rego").write_text((RULE % "R2").replace("log", "kill"))
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    assert importance.get(slot) != bytes(4)
    assert agent._armed.maps["krie_limits"].get(bytes(4)) is not None


def test_what_was_held_back_is_told_exactly(setting: Setting) -> None:
    agent = setting.start()
    setting.happens(2)
    setting.sent(attempts=40, lost=0, alike=30, over=10)
    agent._inbox.drain()
    agent._news.tell()
    held = [each for each in setting.journal(agent) if each["kind"] == "krie.held"]
    assert [(each["event"]["held_kind"], each["event"]["alike"], each["event"]["over"]) for each in held] == [
        ("sample.seen", 30, 10)
    ]
    assert agent._losses.total == 0


def test_records_that_keep_coming_do_not_hold_a_reload_up(setting: Setting) -> None:
    agent = setting.start()
    setting.ring.on_read = lambda: setting.happens(BATCH)
    agent._reload.begin()
    agent._reload.finish(PATIENCE_S)
    assert setting.ring.reads == Records.most_batches


def test_a_wrong_policy_is_refused_and_the_one_before_stays(setting: Setting) -> None:
    agent = setting.start()
    revision = agent._in_force.policy.revision
    (setting.policies / "site.rego").write_text("package krie.site\n\nrules contains")
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    agent._reload.look_for_changes()
    assert not agent._policy_files.loading
    setting.happens()
    agent._inbox.drain()
    refused, seen = setting.journal(agent)[1:]
    assert (refused["event"]["state"], refused["event"]["revision"]) == ("refused", revision)
    assert "site.rego:3" in refused["event"]["reason"]
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]


def test_a_policy_that_the_kernel_does_not_take_is_refused_and_let_go(setting: Setting) -> None:
    agent = setting.start()
    setting.rule("R2")
    before = len(os.listdir("/proc/self/fd"))

    def full(_: object) -> None:
        raise KernelError("creating map krie_generation", 12)

    vars(agent._enforcing)["prepare"] = full
    agent._reload.look_for_changes()
    agent._reload.finish(PATIENCE_S)
    assert len(os.listdir("/proc/self/fd")) == before
    setting.happens()
    agent._inbox.drain()
    refused, seen = setting.journal(agent)[1:]
    assert (refused["event"]["state"], "ENOMEM" in refused["event"]["reason"]) == ("refused", True)
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]


BLOCKS = """package krie.blocks

rules contains {"id": "BLOCKS", "action": "kill"} if {
	input.event.kind == "sample.seen"
	input.process.uid == 5
	count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i == j + 5000]) == 5
}
"""


def blocking(setting: Setting, **limits: int) -> Agent:
    """An agent with a policy that never answers about user 5."""
    (setting.policies / "blocks.rego").write_text(BLOCKS)
    policy = setting.config.policy.model_copy(update=limits)
    setting.config = setting.config.model_copy(update={"policy": policy})
    return setting.start()


def test_records_are_taken_out_of_the_ring_while_a_policy_blocks(setting: Setting) -> None:
    agent = blocking(setting, decision_ms=200)
    setting.happens(uid=5)
    left: list[int] = []

    def on_read() -> None:
        left.append(len(setting.ring.waiting))
        if len(left) == 2:  # while it blocks
            setting.happens(3 * BATCH, uid=1)

    setting.ring.on_read = on_read
    assert agent._inbox.drain()
    assert not setting.ring.waiting
    assert agent._inbox.waiting == 3 * BATCH
    assert agent._inbox.backlog
    while agent._inbox.drain():
        pass
    agent._news.tell()
    lines = setting.journal(agent)[1:]
    assert kinds(lines[:-1]) == ["sample.seen"] * (1 + 3 * BATCH)
    first = lines[0]["decision"]
    assert [each["id"] for each in first["rules"]] == ["R1", "policy.on_error"]
    assert "krie.blocks: gave no answer within 200 ms" in first["error"]
    assert all([each["id"] for each in line["decision"]["rules"]] == ["R1"] for line in lines[1:-1])
    assert (lines[-1]["kind"], lines[-1]["event"]["state"]) == ("krie.policy", "failed")
    assert "krie.blocks" in lines[-1]["event"]["reason"]
    assert agent._bus.health["policy_failures"] == agent._status.to_json()["policy_failures"] == 1


def test_what_is_held_is_bounded_and_taken_in_order() -> None:
    ring, taken = Records(), list[bytes]()
    ring.close()
    inbox = Inbox(cast("Ring", ring), taken.append, 2 * BATCH)
    sent = [bytes([number]) for number in range(5 * BATCH)]
    ring.waiting.extend(sent)
    inbox.hold()
    assert (inbox.waiting, len(ring.waiting)) == (2 * BATCH, 3 * BATCH)
    while inbox.drain():
        pass
    assert taken == sent


def test_nothing_waits_only_where_the_ring_was_read_too() -> None:
    ring, taken = Records(), list[bytes]()
    ring.close()
    inbox = Inbox(cast("Ring", ring), taken.append, 2 * BATCH)
    ring.waiting.extend([b"1"])
    inbox.hold()
    ring.waiting.extend([b"2"])
    assert not inbox.drain()
    assert (taken, ring.waiting) == ([b"1", b"2"], type(ring.waiting)())


def test_a_signal_ends_the_agent_while_a_policy_blocks(setting: Setting) -> None:
    agent = blocking(setting, decision_ms=1000)
    setting.happens(3, uid=5)
    seen: list[float] = []

    def on_read() -> None:
        if not seen and setting.ring.reads > 1:  # within the first event
            seen.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    setting.ring.on_read = on_read
    assert agent.run(120) == "SIGTERM"
    agent.finish()
    assert time.monotonic() - seen[0] < 5
    assert kinds(setting.journal(agent))[-1] == "krie.stopped"


def test_the_agent_goes_on_while_a_policy_is_compiled(setting: Setting) -> None:
    agent = setting.start()
    setting.happens()
    (setting.policies / "blocks.rego").write_text(BLOCKS.replace("== 5\n\tcount", ">= 0\n\tcount"))
    vars(agent._policy_files)["_config"] = setting.config.model_copy(
        update={"policy": setting.config.policy.model_copy(update={"load_s": 2})}
    )
    agent._reload.look_for_changes()
    agent._reload.finish()
    assert agent._policy_files.loading
    agent._inbox.drain()
    agent._reload.finish(PATIENCE_S)
    seen, refused = setting.journal(agent)[1:]
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]
    assert refused["event"]["state"] == "refused"
    assert "within 2 s" in refused["event"]["reason"]


def test_an_end_while_a_policy_is_compiled_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    setting = Setting(tmp_path)
    with setting.stack:
        agent = setting.start()
        setting.rule("R2")
        agent._reload.begin()
        agent.finish()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_the_memo_remembered_is_counted_over_all_policies(setting: Setting) -> None:
    agent = setting.start()
    for _ in range(2):
        setting.happens(3)
        agent._inbox.drain()
        setting.rule("R2")
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
    setting.happens(3)
    agent._inbox.drain()
    assert agent._status.to_json()["remembered"] == agent._in_force.remembered >= 6


def test_signals(setting: Setting) -> None:
    agent = setting.start()
    reloaded = threading.Event()
    setting.rule("R2")

    def press() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        reloaded.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    presses = threading.Thread(target=press)

    def first_read() -> None:
        setting.ring.on_read = lambda: reloaded.set() if agent._in_force.policy.revision != revision else None
        presses.start()

    revision = agent._in_force.policy.revision
    setting.ring.on_read = first_read
    assert agent.run(120) == "SIGTERM"
    presses.join()
    agent.finish()
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.policy", "krie.stopped"]


def test_administrators_are_answered_while_it_runs(setting: Setting) -> None:
    agent = setting.start()
    answers: list[dict[str, Any]] = []

    def administrate() -> None:
        answers.append(ask(Path(setting.config.agent.run_dir), {"ask": "status"}, 60))
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=administrate)

    def first_read() -> None:
        setting.ring.on_read = list
        asking.start()

    setting.ring.on_read = first_read
    agent.run(120)
    asking.join()
    assert answers[0]["tgid"] == os.getpid()
    assert answers[0]["policy"] == agent._in_force.policy.revision


def test_the_doctor_gets_what_the_agent_has(tmp_path: Path) -> None:
    setting = Setting(tmp_path, probe("alive"))
    setting.config = setting.config.model_copy(update={"executables": {"tool": "/nowhere"}})
    with setting.stack:
        agent = setting.start()
        first = agent._status.answer({"ask": "doctor"}, Peer(1, 0))
        setting.probes.changed = [probe("silent")]
        setting.probes.raised = {"sample.x": "EIO"}
        agent._upkeep.check()
        (setting.policies / "more.rego").write_text(RULE.replace("%s", "R2").replace("site", "more"))
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        second = agent._status.answer({"ask": "doctor"}, Peer(1, 0))
    assert first["from"] == {"agent": os.getpid()}
    assert [each["state"] for each in first["probes"]] == ["alive"]
    assert first["degraded"] == {}
    assert first["problems"] == ["executables.tool: /nowhere: No such file or directory; no process gets this name"]
    assert [each["state"] for each in second["probes"]] == ["silent"]
    assert (second["healthy"], second["degraded"]) == (False, {"sample.x": "EIO"})
    assert second["rules"] == first["rules"] + 1
    assert {each["id"] for each in second["blind_rules"]} == {"R1", "R2"}


def test_the_next_agent_knows_how_this_one_ended(setting: Setting) -> None:
    agent = setting.start()
    before = Presence(setting.folder / "state").before()
    assert before is not None
    assert (before.tgid, before.clean) == (os.getpid(), False)
    agent.finish()  # for an error: it did not end by itself
    crashed = Presence(setting.folder / "state").before()
    assert crashed is not None
    assert not crashed.clean
    agent._signals.stop("SIGTERM")
    agent._presence.keep(clean=True)
    ended = Presence(setting.folder / "state").before()
    assert ended is not None
    assert ended.clean


def test_a_clean_end_is_noted(setting: Setting) -> None:
    agent = setting.start()
    agent.run(0)
    agent.finish()
    ended = Presence(setting.folder / "state").before()
    assert ended is not None
    assert ended.clean


def test_a_note_that_cannot_be_written_ends_nothing(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    (setting.folder / "state/agent.new").symlink_to("/nowhere")
    agent._presence.keep()
    assert "the next agent will not know that this one lived" in caplog.text


def test_the_first_reason_to_stop_stands(setting: Setting) -> None:
    agent = setting.start()
    agent._signals.stop("SIGINT")
    agent._signals.stop("SIGTERM")
    assert agent.run(None) == "SIGINT"


def test_runs_that_were_left_out_are_told_and_known(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    missed = [0]
    counted = MissedRuns({"sample_x": 5}, lambda _: RunStatistics("sample_x", 0, 0, missed[0]))
    vars(agent._missed).update(vars(counted))
    agent._upkeep.check()
    missed[0] = 3
    agent._upkeep.check()
    assert agent._bus.health["missed"] == 3

    def gone(_: int) -> RunStatistics:
        raise KernelError("asking for a program's statistics", 9)

    vars(agent._missed).update(_statistics=gone)
    agent._upkeep.check()
    assert "runs that the kernel left out are not counted" in caplog.text
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.missed"]


def test_programs_that_cannot_roam_are_named(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    setting.stuck = {"sample.x": "no place"}
    agent._upkeep.roam()
    assert "probe sample.x stays where it was: no place" in caplog.text


def test_what_plugins_find_is_an_event_like_any(setting: Setting) -> None:
    agent = setting.start()
    found = Sample.without_header(number=5, free=0, flags=(), command="load", known=False, name="x", padding="")

    def scan(complete: Any) -> Iterator[Event]:
        yield complete(found)

    vars(setting.plugins)["scan"] = scan
    agent._scans.scan()
    (line,) = setting.journal(agent)[1:]
    assert (line["kind"], line["event"]["number"], line["process"]["tgid"]) == ("sample.seen", 5, 77)


def test_what_plugins_find_in_the_background_is_asked_for_at_each_tick(setting: Setting) -> None:
    agent = setting.start()
    found = Sample.without_header(number=6, free=0, flags=(), command="load", known=False, name="x", padding="")
    vars(setting.plugins)["poll"] = lambda complete: iter([complete(found)])
    agent._news.tell()
    lines = [line for line in setting.journal(agent) if line["kind"] == "sample.seen"]
    assert [line["event"]["number"] for line in lines] == [6]


def test_a_plugin_that_blocks_signals_keeps_no_agent(setting: Setting) -> None:
    """Nor one that handles them itself: from then on the watch puts that right."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as at its import, so that all threads do
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        agent = setting.start()
        ended = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        ended.start()
        assert agent.run(PATIENCE_S) == "SIGTERM"
        ended.join()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    guard = vars(setting.plugins)["_isolation"]
    handler = signal.getsignal(signal.SIGTERM)
    guard.call("bad", "krie_scan", None, signal.signal, signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is handler
    agent.finish()
    assert "krie.plugin" in kinds(setting.journal(agent))


def test_an_agent_that_was_stopped_tells_the_gap(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGSTOP, of which SIGCONT is all that it gets to know, or with its cgroup."""
    agent = setting.start()
    asked: list[bool] = []

    def beat(*, continued: bool) -> float:
        asked.append(continued)
        return 3.5 if continued else 0.0

    monkeypatch.setattr(agent._upkeep, "_pulse", SimpleNamespace(beat=beat))
    agent._upkeep.beat()
    os.kill(os.getpid(), signal.SIGCONT)
    agent._upkeep.beat()
    agent._upkeep.beat()
    assert asked == [False, True, False]
    (gap,) = (line["event"] for line in setting.journal(agent) if line["kind"] == "krie.gap")
    assert (gap["state"], gap["gap_s"], gap["tgid_before"]) == ("held_up", 3, os.getpid())


def test_all_that_an_agent_imports_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin imports only when one of its hooks is called, too."""
    loose = tmp_path / "loose_module_of_others.py"
    loose.write_text("raise AssertionError('it ran')")
    loose.chmod(0o666)
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(*_: object, **__: object) -> NoReturn:
        importlib.import_module(loose.stem)
        raise AssertionError

    monkeypatch.setattr("krie.agent.main.Agent", start)
    config = tmp_path / "krie.toml"
    config.write_text("")
    tmp_path.chmod(0o700)
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())) as said:
        assert main(["--config", str(config)]) == ExitCode.USAGE
    assert f"{loose}: can be changed by other users" in said.buffer.getvalue().decode()


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "gone.toml")]) == ExitCode.USAGE
    assert "cannot be read" in capsys.readouterr().err
    config = tmp_path / "krie.toml"
    config.write_text("[agent]\nring_mib = 3\n")
    assert main(["--config", str(config)]) == ConfigError.exit_code
    assert "power of two" in capsys.readouterr().err
