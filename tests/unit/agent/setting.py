"""One agent with everything but the kernel, in folders of its own."""

import json
import logging
import os
import signal
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from krie import Alternative, AttachType, Probe, Program, Sensor
from krie.agent.agent import Agent
from krie.agent.loading import Attached
from krie.agent.sending import Sending
from krie.config import Config
from krie.kernel.maps import possible_cpus
from krie.kernel.ring import Ring
from krie.plugin.isolation import Isolation, PluginFault
from krie.plugin.manager import Plugins
from krie.plugin.report import ProbeReport
from krie.processes.sensor import process_sensor
from krie.testing.events import build, encode
from krie.testing.fakes import FakeMap, fake_maps

from ...policy.sample import Sample
from ..kernel_side import KernelSide, LoggedMap, armed

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
                "policy": {"paths": (str(self.policies),), "decision_ms": 60_000},  # on a busy machine, too
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

    def load(self, config: Config, place: str, report: Any, stack: ExitStack, *, contain: bool) -> Attached:
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
            krie_importance=LoggedMap("krie_importance", value_bytes=4, failing=self.kernel.failing),
            krie_budgets=FakeMap("krie_budgets", key_bytes=8, value_bytes=24),
        )
        self.agent_maps = maps
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
        made.levers = lambda: Attached.levers(cast("Attached", made))
        return cast("Attached", made)

    def arm(self) -> Agent:
        return Agent(
            self.config,
            "krie.toml",
            self.stack,
            output=None,
            load=self.load,
            new_ring=lambda _: cast("Ring", self.ring),
        )

    def start(self) -> Agent:
        agent = self.arm()
        agent.begin()
        return agent

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


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [each["kind"] for each in lines]


def probe(state: str, *, required: bool = False) -> ProbeReport:
    chosen = WAY if state != "missing" else None
    return ProbeReport("sample", Probe("x", Sample, (WAY,), required=required), chosen, state, {"lsm": "EPERM"})
