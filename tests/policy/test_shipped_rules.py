"""The shipped rules through the real engine, on documents made of real events: each fires once, and has a near miss."""

from pathlib import Path
from typing import Any

import pytest
from krie import Event
from krie.agent_events import AGENT_EVENTS, Loss, PluginState, PolicyState, ProbeState
from krie.decision import Action
from krie.enforcement_events import ENFORCEMENT_EVENTS, Breaker, Cleared, Contained, Gap, Guarded
from krie.event import EventTypes, own_fields
from krie.plugins.runtime_integrity import plugin
from krie.plugins.runtime_integrity.events import BpfCall, Ptrace, SysctlWrite
from krie.policy.analysis import unknown_names
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import read_sources
from krie.testing.events import build

ROOT = Path(__file__).parents[2] / "policies"
TYPES = EventTypes((*AGENT_EVENTS, *ENFORCEMENT_EVENTS, Ptrace, BpfCall, SysctlWrite))
EXTRA = {
    "runtime_integrity.ptrace": {"target"},
    "runtime_integrity.bpf": set(plugin.krie_facts("runtime_integrity.bpf") or ()),
}
POLICY = Policy(
    EmbeddedEngine(
        read_sources([ROOT / "agent", ROOT / "runtime_integrity"], {"executables": {"apt": "/usr/bin/apt"}})
    ),
    on_error=Action.LOG,
    memo=0,
)


def fired(event: Event, target: str = "", **process: Any) -> set[str]:
    event_type = TYPES[event.kind]
    facts: dict[str, Any] = {"kind": event_type.name, **event_type.json(event)}
    if isinstance(event, Ptrace):
        facts["target"] = {"program": target, "known": True}
    if isinstance(event, BpfCall):
        facts["attach_target"] = ""
    document = {
        "event": facts,
        "process": {"program": "", "exe": "?", "exe_known": False, "uid": event.uid, "euid": event.euid, **process},
        "host": {},
        "health": {},
    }
    decision = POLICY.decide(event_type.name, document)
    assert not decision.error
    return {each.id for each in decision.rules}


def write(name: str, before: int, after: int, **changes: Any) -> SysctlWrite:
    texts = {"old": f"{before}\n", "new": f"{after}\n", "old_parsed": True, "new_parsed": True}
    return build(SysctlWrite, name=name, **{**texts, "old_int": before, "new_int": after, **changes})


def load(**fields: Any) -> BpfCall:
    return build(BpfCall, **{"command": "prog_load", "attr_known": True, "helpers_known": True, **fields})


def trace(**fields: Any) -> Ptrace:
    return build(
        Ptrace, **{"operation": "attach", "target_known": True, "target_tgid": 77, "target_uid": 1000, **fields}
    )


CASES = [
    (write("kernel/kptr_restrict", 1, 0), {"SYSCTL001"}, write("kernel/kptr_restrict", 1, 2)),
    (write("kernel/ftrace_enabled", 1, 0), {"SYSCTL001"}, write("kernel/ftrace_enabled", 0, 0)),
    (write("vm/unprivileged_userfaultfd", 0, 1), {"SYSCTL001"}, write("vm/unprivileged_userfaultfd", 1, 0)),
    (write("kernel/kptr_restrict", 1, 0, new_parsed=False), {"SYSCTL002"}, write("kernel/core_uses_pid", 1, 0)),
    (write("kernel/kptr_restrict", 1, 2, file_pos=1), {"SYSCTL002"}, write("kernel/kptr_restrict", 1, 2)),
    (
        write("kernel/modprobe", 0, 0, old="/sbin/modprobe\n", new="/tmp/x\n", new_parsed=False),
        {"SYSCTL003"},
        write("kernel/modprobe", 0, 0, old="/sbin/modprobe\n", new="/sbin/modprobe\n", new_parsed=False),
    ),
    (load(), {"BPF001"}, load(command="prog_get_next_id")),
    (load(helpers=("send_signal",)), {"BPF001", "BPF002"}, load(command="map_create", helpers=("send_signal",))),
    (load(helpers_known=False), {"BPF001", "BPF004"}, load(command="link_create", helpers_known=False)),
    (trace(target_uid=0), {"PTRACE001"}, trace()),
    (trace(target_tgid=1), {"PTRACE002"}, trace(target_tgid=1, operation="traceme")),
    (trace(uid=0, euid=0), {"PTRACE003"}, trace(uid=0, euid=0, target_uid=0)),
    (build(Loss, cause="ring_full"), {"AGENT001"}, build(PolicyState, state="loaded")),
    (build(ProbeState, state="silent"), {"AGENT002"}, build(ProbeState, state="attached")),
    (build(PluginState), {"AGENT003"}, build(ProbeState, state="alive")),
    (build(PolicyState, state="refused"), {"AGENT004"}, build(PolicyState, state="loaded")),
    (build(Guarded), {"AGENT005"}, build(PolicyState, state="loaded")),
    (build(Contained), {"AGENT006"}, build(PolicyState, state="loaded")),
    (build(Breaker, state="tripped"), {"AGENT007"}, build(Breaker, state="rearmed")),
    (build(Gap), {"AGENT008"}, build(PolicyState, state="loaded")),
    (build(Cleared), {"AGENT009"}, build(PolicyState, state="loaded")),
]


@pytest.mark.parametrize(("event", "rules", "near_miss"), CASES)
def test_a_rule_fires_and_has_a_near_miss(event: Event, rules: set[str], near_miss: Event) -> None:
    assert fired(event) == rules
    assert not rules & fired(near_miss)


def test_named_programs() -> None:
    assert fired(load(), program="apt") == set()
    assert fired(load(helpers=("probe_write_user",)), program="apt") == {"BPF003"}
    assert fired(trace(uid=0, euid=0, target_uid=0), target="sshd") == {"PTRACE002"}


def test_every_rule_has_a_case() -> None:
    covered = {id_ for _, rules, _ in CASES for id_ in rules} | {"BPF003"}
    assert {rule.id for rule in POLICY.rules} == covered


def test_metadata_is_complete_and_true() -> None:
    for rule in POLICY.rules:
        source = Path(rule.place.rpartition(":")[0]).read_text()
        assert f"custom: {{id: {rule.id}, severity: {rule.severity}, action: {rule.action}}}" in source
        assert rule.title
        assert rule.severity in {"low", "medium", "high", "critical"}


def test_rules_read_nothing_that_events_do_not_have() -> None:
    fields = {each.name: own_fields(each.event) | EXTRA.get(each.name, set()) for each in TYPES}
    assert unknown_names(POLICY.rules, fields) == ()
