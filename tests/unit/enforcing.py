"""Enforcement of one agent, over the kernel's side in memory, with a policy of two rules."""

import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie import Action, Event, FiredRule, Sensor
from krie.agent.enforcement import Enforcing
from krie.config import Config
from krie.decision import Decision, Mode, merge
from krie.enforce.containment import containment_sensor
from krie.enforce.self_defence import Guard
from krie.events.event import BY_TABLE
from krie.events.identity import Key
from krie.plugin.report import ProbeReport
from krie.policy.policy import Policy
from krie.processes.executables import Executables
from krie.processes.peer import Peer
from krie.processes.principal import Principal
from krie.testing.events import build
from krie.tier.candidate import Candidate

from ..policy.sample import Sample
from ..policy.subjects import subject
from .kernel_side import AGENT, KernelSide, armed

SENSOR = Sensor("sample", "1", events=(Sample,))
OBSERVER = Sensor("observer", "1")
MADE = subject(
    ("REFUSES", "override", ["input.process.uid == 5"]),
    ("KILLS", "kill", ["input.process.uid == 6"]),
)
ONE, OTHER = Key(4_194_000, 7 * 10**9), Key(4_194_001, 8 * 10**9)  # nobody on this machine
ADMIN = Peer(1234, 0)


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def later() -> int:
    return now() + 3600 * 10**9


def contained(state: str = "alive") -> list[ProbeReport]:
    return [
        ProbeReport("containment", each, None if state == "missing" else each.alternatives[0], state, {"lsm": "EPERM"})
        for each in containment_sensor().probes
    ]


def candidate() -> Candidate:
    policy = Policy(MADE.engine, on_error=Action.LOG, memo=0)
    return Candidate(policy, MADE.tiers, MADE.numbers, Executables({}, {}, ()), ())


class Setting:
    def __init__(self, debugfs: Path, *, state: str = "alive", mode: Mode = Mode.ENFORCE, **config: object) -> None:
        self.kernel, self.debugfs = KernelSide(), debugfs
        self.reports = contained(state)
        modes = {"sample": mode, "observer": Mode.OBSERVE}
        self.armed = armed(self.kernel, OBSERVER, SENSOR, reports=self.reports, modes=modes)
        self.stack = ExitStack()
        own = {each: str(debugfs.parent / each) for each in ("state_dir", "run_dir")}
        for folder in own.values():
            Path(folder).mkdir(exist_ok=True)
        settings = Config.model_validate({"agent": own, "enforcement": config})
        self.enforcing = Enforcing(
            settings,
            self.armed.levers(),
            self.armed.sending,
            self.armed.sensors,
            self.armed.types,
            self.armed.plugins,
            self.armed.probes,
            self.stack,
            self.kernel.tables,
            self._guard,
            agent_tgid=AGENT,
            principal_of=lambda event: Principal("lineage", Key(event.tgid, event.start_time)),
        )

    def _guard(self) -> Guard:
        return Guard(
            lambda: os.open(self.debugfs, os.O_PATH), lambda: (), lambda: os.open(self.debugfs / "sysrq", os.O_PATH)
        )

    def started(self) -> "Setting":
        self.enforcing.start(candidate())
        return self

    def change(self) -> None:
        """Another policy comes into force."""
        self.enforcing.take_over(self.enforcing.prepare(candidate()))

    @property
    def verdicts(self) -> "set[tuple[Key, int]]":
        tables = self.armed.verdicts
        return {(each.process, each.kind) for each in (*tables.poisoned(), *tables.bound())}

    def told(self, event: type[Event]) -> list[dict[str, object]]:
        return [fields for each, fields in self.enforcing.tick() if each is event]

    @property
    def held_back(self) -> list[str]:
        """Rules that may only refuse in the kernel."""
        return list(self.enforcing.tier.status()["only_refuse"])

    def number(self, rule: str) -> int:
        """By which the kernel's tables know a rule."""
        return self.enforcing.enforcer._rules.number(rule)

    def hit(self, process: Key, rule: str = "KILLS") -> None:
        """The kernel decided an event by a rule of its table."""
        event = build(
            Sample,
            tgid=process.tgid,
            start_time=process.start_time,
            exe_ino=5,
            decided_by=BY_TABLE,
            done=7,
            generation=1,
        )
        self.enforcing.enforcer(event, decision(rule))


def decision(rule: str) -> Decision:
    action = Action.KILL if rule == "KILLS" else Action.OVERRIDE
    return merge([FiredRule(rule, action)], tier="kernel", revision="r")


@pytest.fixture(name="debugfs")
def debugfs_with_kprobes(tmp_path: Path) -> Path:
    (tmp_path / "debugfs/kprobes").mkdir(parents=True)
    (tmp_path / "debugfs/kprobes/enabled").write_text("1\n")
    return tmp_path / "debugfs"


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
