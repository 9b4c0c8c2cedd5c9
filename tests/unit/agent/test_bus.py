"""The bus against fakes: bytes in, journal lines out, and nothing that raises on the way."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import pytest
from krie import Action, Decision, Event, FiredRule, Scope
from krie.agent.bus import Bus, Wall
from krie.agent.selection import Selection
from krie.decision import Mode, merge
from krie.enforce.enforcer import Effect, would
from krie.events.agent import AGENT_EVENTS, Loss, OwnEvents
from krie.events.event import BY_TABLE, EventTypes
from krie.events.identity import Identity, Key
from krie.events.wire import Json, text_of
from krie.kernel.cgroups import Cgroups
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.processes.enrich import PROCESS_SCHEMA, Enricher
from krie.processes.process import NOTHING
from krie.processes.sensor import ProcessExec, ProcessExit, ProcessFork
from krie.processes.table import ProcessTable
from krie.testing.events import build, encode

TYPES = EventTypes((*AGENT_EVENTS, BpfCall, Ptrace, SysctlWrite, ProcessExec, ProcessExit, ProcessFork))
KILL = merge([FiredRule("T1", Action.KILL, Scope.PROCESS, 0, 600)], tier="user", revision="r1")


def observe(_event: Event, decision: Decision) -> Effect:
    return Effect(Mode.OBSERVE, would=would(decision))


class Judge:
    def __init__(self, decision: Decision = KILL) -> None:
        self.asked: list[tuple[str, Mapping[str, Json]]] = []
        self._decision = decision
        self.together = 1
        self.batches: list[int] = []

    def describe(self, rule: str) -> Mapping[str, Json]:
        return {"severity": "high", "title": f"Title of {rule}", "technique": "T1068"}

    def decide(self, kind: str, document: Mapping[str, Json]) -> Decision:
        self.asked.append((kind, document))
        return self._decision

    def decide_many(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Decision]:
        self.batches.append(len(events))
        return [self.decide(*each) for each in events]


class Setting:
    def __init__(self, facts: Mapping[str, Any] | None = None, min_action: Action = Action.ALLOW) -> None:
        self.table = ProcessTable(1000, lambda _: NOTHING)
        self.judge = Judge()
        self.lines: list[dict[str, Any]] = []
        self.seen: list[tuple[Event, Decision]] = []
        self.enricher = Enricher(TYPES, self.table, Cgroups(None), facts or {})
        self.important: list[str] = []
        self.selection = Selection(min_action, [])
        self.bus = Bus(
            TYPES,
            self.table,
            self.enricher,
            self.judge,
            [self._sink],
            [self._observe],
            observe,
            self.selection,
            [self._keep],
        )

    def _sink(self, line: str) -> bool:
        self.lines.append(json.loads(line))
        return True

    def _keep(self, line: str) -> bool:
        self.important.append(line)
        return True

    def _observe(self, event: Event, decision: Decision) -> None:
        self.seen.append((event, decision))


def test_the_journals_shape() -> None:
    setting = Setting()
    setting.bus.host = {"name": "web1", "machine_id": "0" * 32}
    event = build(SysctlWrite, name="kernel/x", new="1\n", exe_dev=8, exe_ino=9, cgroup=1, time=10**12)
    setting.enricher.programs = {Identity(8, 9, 0): "tool"}
    setting.bus.take(encode(event))
    (line,) = setting.lines
    expected = "v seq time since_boot_ns host kind process event decision mode would done given values"
    assert list(line) == expected.split()
    assert (line["v"], line["seq"], line["kind"]) == (1, 1, "runtime_integrity.sysctl_write")
    assert (line["since_boot_ns"], line["host"]) == (10**12, {"name": "web1", "machine_id": "0" * 32})
    assert line["decision"] == {
        "action": "kill",
        "scope": "process",
        "errno": 0,
        "ttl_s": 600,
        "rules": [
            {"id": "T1", "action": "kill", "severity": "high", "title": "Title of T1", "technique": "T1068"},
        ],
        "tier": "user",
        "revision": "r1",
    }
    assert (line["mode"], line["would"], line["done"]) == ("observe", ["poison", "kill"], [])
    wanted = (
        "tgid tid start_time comm exe exe_known program influence uid euid gid kernel_thread container parent cgroup "
        "namespaces"
    ).split()
    assert list(line["process"]) == wanted
    assert line["process"]["program"] == "tool"
    assert (line["event"]["name"], line["event"]["new"]) == ("kernel/x", "1\n")
    assert "kind" not in line["event"]


def test_what_fails_of_one_event_costs_no_other_its_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    setting.judge.together = 3
    carried_out: list[int] = []

    def fail_at_first(event: Event, decision: Decision) -> Effect:
        carried_out.append(event.tgid)
        if carried_out == [1]:
            raise MemoryError
        return observe(event, decision)

    monkeypatch.setattr(setting.bus, "_carry_out", fail_at_first)
    for tgid in (1, 2):
        setting.bus.take(encode(build(SysctlWrite, tgid=tgid)))
    with pytest.raises(MemoryError):
        setting.bus.take(encode(build(SysctlWrite, tgid=3)))
    setting.bus.settle()
    assert carried_out == [1, 2, 3]
    assert [line["process"]["tgid"] for line in setting.lines] == [2, 3]


def test_ends_of_processes_are_told() -> None:
    setting = Setting()
    ended: list[Key] = []
    bus = Bus(
        TYPES, setting.table, setting.enricher, setting.judge, [], [], observe, setting.selection, [], ended.append
    )
    for kind in (ProcessFork, ProcessExec, ProcessExit):
        bus.take(encode(build(kind, tgid=5, start_time=50)))
    assert ended == [Key(5, 50)]


def test_policies_see_what_the_schemas_say() -> None:
    setting = Setting()
    setting.bus.host = {"name": "h"}
    setting.bus.take(encode(build(Ptrace, target_tgid=7, target_start_time=70)))
    ((kind, document),) = setting.judge.asked
    assert kind == "runtime_integrity.ptrace"
    assert set(document) == {"event", "process", "host", "health"}
    assert isinstance(PROCESS_SCHEMA, dict)
    jsonschema.validate(document["process"], PROCESS_SCHEMA)
    event = document["event"]
    assert isinstance(event, dict)
    assert event["target"] == {
        "tgid": 7,
        "start_time": 70,
        "comm": "",
        "exe": "?",
        "exe_known": False,
        "program": "",
        "known": False,
        "uid": 0,
    }


def test_records_of_processes_feed_the_table_and_are_not_judged() -> None:
    setting = Setting()
    setting.bus.take(encode(build(ProcessExec, components=b"sh\0bin\0".ljust(768, b"\0"), length=7, exe_ino=5)))
    assert setting.lines == []
    setting.bus.take(encode(build(BpfCall, exe_ino=5)))
    assert setting.lines[0]["process"]["exe"] == "/bin/sh"
    assert setting.bus.received == {ProcessExec.KIND: 1, BpfCall.KIND: 1}


def test_what_a_table_in_the_kernel_decided_says_so() -> None:
    setting = Setting()
    for decided_by in (0, 1, 2, BY_TABLE, 4):
        setting.bus.take(encode(build(SysctlWrite, decided_by=decided_by)))
    tiers = [line["decision"]["tier"] for line in setting.lines]
    assert tiers == ["user", "user", "user", "kernel", "user"]
    assert [decision.tier for _, decision in setting.seen] == tiers


def test_broken_records_are_counted_and_the_next_one_is_taken() -> None:
    setting = Setting()
    for raw in (b"", b"\xff" * 300, encode(build(BpfCall))[:-1]):
        setting.bus.take(raw)
    setting.bus.take(encode(build(BpfCall)))
    assert (setting.bus.undecodable, len(setting.lines)) == (3, 1)


def test_facts_are_added() -> None:
    setting = Setting({"runtime_integrity.bpf": lambda event: {"attach_target": f"f{event.attach_btf_id}"}})
    setting.bus.take(encode(build(BpfCall, attach_btf_id=3)))
    assert setting.lines[0]["event"]["attach_target"] == "f3"


def test_observers_see_event_and_decision() -> None:
    setting = Setting()
    setting.bus.take(encode(build(BpfCall)))
    assert setting.seen == [(build(BpfCall), KILL)]


def test_the_agents_own_events_are_cut_to_their_fields() -> None:
    own = OwnEvents(build(Loss), EventTypes(AGENT_EVENTS))
    loss = Loss.without_header(lost_kind="k" * 100, cause="ring_full", count=1, total=2)
    event = own.complete(loss)
    assert event.lost_kind == "k" * 64
    assert own.complete(loss).seq == 1


def test_text_that_has_no_utf8_does_not_stop_the_agent() -> None:
    own = OwnEvents(build(Loss), EventTypes(AGENT_EVENTS))
    loss = Loss.without_header(lost_kind="odd \ud800 \udcff", cause="ring_full", count=1, total=2)
    assert own.complete(loss).lost_kind.startswith("odd ")


TEXTS = ["C:\\x", "C:\\\\x", "\\", "\\x5c", "\\xff", "a\\tb", "plain", "ä\\é", text_of(b"C:\\x \xff"), ""]


@pytest.mark.parametrize("text", TEXTS)
def test_the_agents_own_texts_stay_as_they_are(text: str) -> None:
    own = OwnEvents(build(Loss, comm=text), EventTypes(AGENT_EVENTS))
    event = own.complete(Loss.without_header(lost_kind=text, cause="ring_full", count=1, total=2))
    assert (event.lost_kind, event.comm) == (text, text)


def test_a_long_text_is_cut_between_characters() -> None:
    own = OwnEvents(build(Loss), EventTypes(AGENT_EVENTS))
    event = own.complete(Loss.without_header(lost_kind="k" * 63 + "ä", cause="ring_full", count=1, total=2))
    assert event.lost_kind == "k" * 63


def test_time_is_rfc3339_with_nanoseconds() -> None:
    wall = Wall()
    wall.rfc3339(0)
    wall._offset = 1_700_000_000_000_000_000
    assert wall.rfc3339(5_000_000_007) == "2023-11-14T22:13:25.000000007Z"


def test_what_matters_is_kept_twice() -> None:
    setting = Setting()
    setting.bus.take(encode(build(Ptrace)))
    setting.judge._decision = merge([FiredRule("T2", Action.LOG)], tier="user", revision="r1")
    setting.bus.take(encode(build(Ptrace)))
    assert [line["decision"]["action"] for line in setting.lines] == ["kill", "log"]
    assert [json.loads(line) for line in setting.important] == setting.lines[:1]


def test_lines_below_the_least_action_are_not_written_but_judged() -> None:
    setting = Setting(min_action=Action.LOG)
    setting.judge._decision = merge([], tier="user", revision="r1")
    setting.bus.take(encode(build(Ptrace)))
    assert (setting.lines, len(setting.seen), setting.bus.judged) == ([], 1, 1)


def test_a_hosts_name_ends_no_line() -> None:
    setting = Setting()
    kept: list[str] = setting.important
    setting.bus.host = {"name": 'web\n{"v": 1}\x1b[2J\u202e', "boot_id": "b"}
    setting.bus.take(encode(build(Ptrace)))
    (line,) = kept
    assert line.isprintable()
    assert json.loads(line)["host"] == setting.bus.host
