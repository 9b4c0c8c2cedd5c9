"""Events without number: the agent takes, decides and journals them, and holds no more for it than after the first.

Every event has values that no other one has, and processes come and go. What is remembered has bounds, which are small
here: after a tenth of the events all of it is full.
"""

import ctypes
import gc
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from krie.agent import selection
from krie.agent.agent import Agent
from krie.agent.resident import resident
from krie.events import given
from krie.events.event import Event
from krie.events.layout import layout_of
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.testing.events import build, encode
from krie.testing.patience import wait_for

from ...policy.sample import Sample
from .setting import Setting

RULES = """package krie.site

# METADATA
# custom: {id: ODD, severity: high, action: log}
rules contains {"id": "ODD", "action": "log"} if {
	input.event.kind == "sample.seen"
	input.event.number % 2 == 1
}

rules contains {"id": "KILL", "action": "kill"} if {
	input.event.kind == "sample.seen"
	startswith(input.process.exe, "/tmp/")
	input.event.number % 100 == 0
}
"""
BATCH = 1000
"""Events between two looks at the journal's queue, which holds more."""
TO_A_PROCESS = 5
KEPT = 256
MOST_KIB = 8192
"""That a process may grow by, whatever the number of events: memory that is free in pieces."""


class Template:
    """Records of one kind that differ in numbers only: to build each one anew would take most of the time."""

    def __init__(self, event: Event, *fields: str) -> None:
        self._raw = bytearray(encode(event))
        layout = layout_of(type(event))
        codes = {each.name: (f"<{each.wire.code}", each.offset) for each in layout.fields}
        self._places = [codes[name] for name in fields]

    def __call__(self, *values: int) -> bytes:
        for (code, at), value in zip(self._places, values, strict=True):
            struct.pack_into(code, self._raw, at, value)
        return bytes(self._raw)


FORK = Template(build(ProcessFork), *"tgid start_time child_tgid child_start_time".split())
EXEC = Template(
    build(ProcessExec, components=b"sh\0tmp\0".ljust(768, b"\0"), length=7, exe_dev=1),
    *"tgid start_time parent_tgid parent_start_time exe_ino uid".split(),
)
EXIT = Template(build(ProcessExit), "tgid", "start_time")
SEEN = Template(
    build(Sample, exe_dev=1), *"tgid start_time parent_tgid parent_start_time exe_ino uid time number".split()
)


def records(numbers: range) -> Iterator[bytes]:
    """One event for each number, and the lives of the processes that they are of and of those that made these."""
    for first in numbers[::TO_A_PROCESS]:
        maker, process = (1000 + first % 1_000_000, 10**10 + first), (1001 + first % 1_000_000, 10**10 + first)
        user = 1000 + first % 60_000
        yield EXEC(*maker, 1, 1, 2, user)
        yield FORK(*maker, *process)
        yield EXEC(*process, *maker, first, user)
        for number in range(first, first + TO_A_PROCESS):
            yield SEEN(*process, *maker, first, user, number * 1000, number)
        yield EXIT(*process)
        yield EXIT(*maker)


class Held:
    """What the agent and its evaluator hold of the machine."""

    def __init__(self, agent: Agent) -> None:
        evaluator = agent._policy_files.evaluator
        assert evaluator is not None
        assert evaluator.worker is not None
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free: how much that is depends on how long a queue once was
        self.processes = (os.getpid(), evaluator.worker)
        self.blocks = sys.getallocatedblocks()
        self.descriptors = [len(os.listdir(f"/proc/{each}/fd")) for each in self.processes]
        self.kib = [resident(each).rss_anonymous for each in self.processes]


def happen(setting: Setting, agent: Agent, numbers: range) -> None:
    """These events, as far as their lines in the journal."""
    for first in numbers[::BATCH]:
        setting.ring.waiting.extend(records(range(first, min(first + BATCH, numbers.stop))))
        setting.sent(BATCH, 0)
        while agent._inbox.drain():
            pass
        wait_for(lambda: not any(each._lines for each in agent._writers.all))
    agent._news.tell()


@pytest.mark.parametrize("events", [60_000, pytest.param(1_200_000, marks=pytest.mark.slow)])
def test_nothing_grows(setting: Setting, monkeypatch: pytest.MonkeyPatch, events: int) -> None:
    monkeypatch.setattr(selection, "_KEYS", KEPT)
    monkeypatch.setattr(given, "_KNOWN", KEPT)
    config = setting.config
    small = {
        "agent": config.agent.model_copy(update={"processes": 1024}),
        "journal": config.journal.model_copy(update={"max_mib": 1, "keep": 2, "important_max_mib": 1}),
        "policy": config.policy.model_copy(update={"memo": KEPT}),
    }
    setting.config = config.model_copy(update=small)
    (setting.policies / "site.rego").write_text(RULES)
    agent = setting.start()
    actions: Counter[str] = Counter()
    agent._bus._observers = (*agent._bus._observers, lambda _, decision: actions.update([str(decision.action)]))
    happen(setting, agent, range(events // 10))
    before = Held(agent)
    happen(setting, agent, range(events // 10, events))
    after = Held(agent)

    assert after.processes == before.processes
    assert after.descriptors == before.descriptors
    assert after.blocks - before.blocks < events // 100  # of Python's: not even one for a hundred events
    assert [late - early < MOST_KIB for late, early in zip(after.kib, before.kib, strict=True)] == [True, True]

    received = agent._bus.received
    assert received[Sample.KIND] == events
    assert received[ProcessFork.KIND] * 2 == received[ProcessExec.KIND] == events // TO_A_PROCESS * 2
    assert actions == {"allow": events // 2 - events // 100, "log": events // 2, "kill": events // 100}
    assert (agent._losses.total, agent._bus.undecodable) == (0, 0)
    assert [(each.overflowed, each.failed) for each in agent._writers.all] == [(0, 0)] * 2
    journal = setting.folder / "journal.jsonl"
    assert sum(each.stat().st_size for each in journal.parent.glob(f"{journal.name}*")) < 4 << 20
