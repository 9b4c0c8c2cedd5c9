"""The shipped rules through the real engine, on documents made of real events: each fires once, and has a near miss."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from krie import Event
from krie.decision import Action
from krie.events.event import own_fields
from krie.policy.embedded import EmbeddedEngine
from krie.policy.metadata import Metadata
from krie.policy.policy import Policy
from krie.policy.sources import read_sources
from krie.policy.unknown_names import unknown_names

from .rule_cases import CASES, EXTRA, TYPES, document_of, load, trace

ROOT = Path(__file__).parents[2] / "policies"
POLICY = Policy(
    EmbeddedEngine(
        read_sources(
            [ROOT / each for each in ("agent", "runtime_integrity", "smep_smap", "syscall_table")],
            {"executables": {"apt": "/usr/bin/apt"}},
        )
    ),
    on_error=Action.LOG,
    memo=0,
)


def fired(event: Event, target: str = "", **process: Any) -> set[str]:
    decision = POLICY.decide(*document_of(event, target, **process))
    assert not decision.error
    return {each.id for each in decision.rules}


@pytest.mark.parametrize(("event", "rules", "near_miss"), CASES)
def test_a_rule_fires_and_has_a_near_miss(event: Event, rules: set[str], near_miss: Event) -> None:
    assert fired(event) == rules
    assert not rules & fired(near_miss)


def test_named_programs() -> None:
    assert fired(load(), program="apt") == set()
    assert fired(load(helpers=("probe_write_user",)), program="apt") == {"BPF003"}
    assert fired(load(helpers_known=False), program="apt") == {"BPF004"}
    assert fired(trace(uid=0, euid=0, target_uid=0), target="sshd") == {"PTRACE004"}


def test_every_rule_has_a_case() -> None:
    covered = {id_ for _, rules, _ in CASES for id_ in rules} | {"BPF003", "BPF004", "PTRACE004"}
    assert {rule.id for rule in POLICY.rules} == covered


def annotations() -> dict[str, dict[str, Any]]:
    """The METADATA of all rules as `opa` reads them, by FILE:LINE."""
    opa = ROOT.parent / ".cache/tools/opa"
    found = subprocess.run([opa, "inspect", "-a", "-f", "json", ROOT], check=True, capture_output=True).stdout
    return {
        f"{each['location']['file']}:{each['location']['row']}": each["annotations"]
        for each in json.loads(found)["annotations"]
    }


def test_metadata_is_complete_and_true() -> None:
    wanted = {"id", "severity", "action", "technique", "seen"}
    above = annotations()
    for rule in POLICY.rules:
        found = above[rule.place]
        assert found["custom"].keys() - {"enforce"} == wanted, rule.id
        assert (found["custom"]["id"], found["custom"]["action"]) == (rule.id, rule.action)
        assert all((found["title"], found.get("description"), found["custom"]["seen"])), rule.id
        assert not found["title"].endswith("."), rule.id
        assert found["custom"]["severity"] in {"low", "medium", "high", "critical"}
        assert re.fullmatch(r"(T\d{4}(\.\d{3})?)?", found["custom"]["technique"]), rule.id


def test_metadata_are_read_as_opa_reads_them() -> None:
    above = annotations()
    for rule in POLICY.rules:
        found = above[rule.place]
        custom = {"severity": "", "technique": "", "seen": "", **found["custom"]}
        texts = {name: " ".join(found[name].split()) for name in ("title", "description")}
        texts |= {name: " ".join(custom[name].split()) for name in ("severity", "technique", "seen")}
        assert rule.metadata == Metadata(**texts, inline=custom.get("enforce") == "inline")


def test_rules_read_nothing_that_events_do_not_have() -> None:
    fields = {each.name: own_fields(each.event) | EXTRA.get(each.name, set()) for each in TYPES}
    assert unknown_names(POLICY.rules, fields) == ()
