"""`krie doctor`: whom it asks, what the document says, and that the document is all that people's view needs."""

import io
import json
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from krie import Alternative, KernelError, Probe
from krie.agent.admin import RefusedError
from krie.agent.control import SOCKET
from krie.agent.diagnosis import Report, diagnose
from krie.cli.doctor import consult
from krie.cli.render_doctor import doctor
from krie.decision import Mode
from krie.enforce.guard_sensor import NAME as GUARD
from krie.events.operations import OPERATIONS
from krie.plugin.report import ProbeReport
from krie.privileges import locked_down
from rich.console import Console

from ..kernel_side import KernelSide, armed
from .diagnosed import contained, found
from .reported import POLICY, probe
from .serving import Serving

ALL = len(OPERATIONS)


def shown(report: Report) -> str:
    """As people see it when the document has gone over a socket."""
    console = Console(file=io.StringIO(), width=200)
    doctor(console, json.loads(json.dumps(report.to_json())))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("agent", "source", "text"),
    [(None, None, "tried now, nothing stays attached"), (77, {"agent": 77}, "as the running agent (tgid 77) reports")],
)
def test_it_says_where_it_comes_from(agent: int | None, source: object, text: str) -> None:
    report = found(probe("a", "alive"), agent=agent)
    assert report.to_json()["from"] == source
    assert text in shown(report).splitlines()[:4]


def test_both_sources_print_the_same() -> None:
    reports = (probe("a", "alive"), probe("b", "missing"), *contained("silent"))
    tried, told = (shown(found(*reports, agent=agent)).splitlines() for agent in (None, 77))
    differing = [(one, other) for one, other in zip(tried, told, strict=True) if one != other]
    assert differing == [("tried now, nothing stays attached", "as the running agent (tgid 77) reports")]


def test_the_document_tells_all_of_a_probe() -> None:
    document = found(probe("a", "alive"), probe("b", "missing"), *contained()).to_json()
    first, second = document["probes"]
    assert {name: first[name] for name in ("name", "state", "alternative", "reason", "optional", "can")} == {
        "name": "sample.a",
        "state": "alive",
        "alternative": "lsm",
        "reason": "sees little",
        "optional": False,
        "can": [],
    }
    assert "name" in first["not_filled"]
    assert "number" not in first["not_filled"]
    assert (second["alternative"], second["reason"]) == (None, "lsm: EPERM")
    assert document["kernel"] == {"release": "6.12.0", "refused": {"lsm": "EPERM"}, "lockdown": locked_down()}
    assert document["modes"] == {"sample": "observe"}


def test_people_see_what_needs_their_attention() -> None:
    degraded = {"other": "it [raised]"}
    report = found(probe("a", "silent"), degraded=degraded, problems=("executables.x: gone",))
    text = shown(report)
    lines = [line.split() for line in text.splitlines()]
    assert ["refuses", "lsm:", "EPERM"] in lines
    assert ["sample.a", "silent", "lsm", "its", "canary", "did", "not", "arrive;", "sees", "little"] in lines
    assert ["sample.a", "lsm", "EPERM"] in lines
    assert "degraded other: it [raised]" in text
    assert "note executables.x: gone" in text
    assert text.startswith(f"Something does not work ({len(POLICY.rules)} rules, revision )\n")


def test_people_see_how_far_the_kernel_is_locked_down() -> None:
    report = replace(found(probe("a", "alive")), lockdown="integrity")
    assert report.to_json()["kernel"]["lockdown"] == "integrity"
    assert "\nlocked down (integrity): memory can be read" in shown(report)
    assert "locked down" not in shown(replace(report, lockdown=""))


def test_it_begins_with_what_to_do() -> None:
    degraded = {"other": "it raised"}
    slow = replace(probe("c", "alive"), alternative=Alternative("syscall", (), every_syscall=True))
    report = found(probe("a", "silent"), probe("b", "missing"), slow, degraded=degraded)
    advice = [line.partition(":")[0] for line in shown(report).splitlines() if line.startswith("  -> ")]
    assert advice[0].startswith("  -> plugin other is degraded")
    assert advice[1:3] == ["  -> sample.a", "  -> sample.b"]
    assert advice[-1] == "  -> sample.c"
    assert not [line for line in shown(found(probe("a", "alive"), rules=())).splitlines() if "->" in line]


def test_all_is_well() -> None:
    assert "All probes work; no rule is blind (" in shown(found(probe("a", "alive"), rules=(), mode=Mode.OBSERVE))


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([], f"Poison holds: all {ALL} guarded operations can be refused, by lsm\n"),
        (["missing", "silent"], f"Poison leaks: {ALL - 2} of {ALL} guarded operations can be refused"),
        (["missing"] * ALL, "Poison cannot hold here: no guarded operation can be refused"),
    ],
)
def test_what_poison_is_worth(states: Sequence[str], text: str) -> None:
    report = found(probe("a", "alive"), *contained(*states), mode=Mode.ENFORCE)
    lines = shown(report).splitlines()
    assert text in "\n".join(lines)
    rows = [line.split()[:2] for line in lines]
    assert (["file_open", "missing"] in rows) is (["inode_create", "silent"] in rows) is (len(states) == 2)
    assert report.to_json()["containment"]["loaded"]
    assert ("  EPERM" in lines or "  lsm: EPERM" in lines) is (len(states) == ALL)


def test_what_an_observing_agent_did_not_load_is_not_said_to_fail() -> None:
    report = found(probe("a", "alive"), agent=77, rules=())
    assert report.healthy
    document = report.to_json()["containment"]
    assert document == {"loaded": False, "enforces": False, "refused": 0, "of": len(OPERATIONS), "probes": []}
    text = shown(report)
    assert "Poison is not tried: an agent that only observes does not load what refuses operations" in text
    assert "cannot hold" not in text


def test_poison_that_does_not_hold_is_a_failure_only_where_something_enforces() -> None:
    reports = (probe("a", "alive"), *contained("silent"))
    assert found(*reports, rules=()).healthy
    assert not found(*reports, rules=(), mode=Mode.ENFORCE).healthy


@pytest.mark.parametrize(
    ("state", "text"), [("alive", "Guard holds: all 1 hooks are there"), ("missing", "path_unlink")]
)
def test_what_guards_the_agent_counts_where_something_enforces(state: str, text: str) -> None:
    hook = Probe("path_unlink", None, (Alternative("lsm", ()),))
    reports = (probe("a", "alive"), *contained(), ProbeReport(GUARD, hook, None, state, {"lsm": "EPERM"}))
    assert found(*reports, rules=()).healthy
    assert found(*reports, rules=(), mode=Mode.ENFORCE).healthy is (state == "alive")
    assert text in shown(found(*reports))
    assert [each["name"] for each in found(*reports).to_json()["probes"]] == ["sample.a"]


def never() -> dict[str, Any]:
    raise AssertionError("nothing may be tried beside an agent")


def test_a_running_agent_is_asked(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    try:
        assert consult(tmp_path, never)["echo"] == {"ask": "doctor"}
    finally:
        serving.stop()


def test_where_none_runs_it_is_tried(tmp_path: Path) -> None:
    assert consult(tmp_path, lambda: {"from": None}) == {"from": None}
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as left_behind:
        left_behind.bind(str(tmp_path / SOCKET))
    assert consult(tmp_path, lambda: {"from": None}) == {"from": None}


def test_what_an_agent_does_not_want_or_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        raise ValueError("ask for status")

    monkeypatch.setattr(Serving, "_answer", refuse)
    serving = Serving(tmp_path)
    try:
        with pytest.raises(RefusedError, match="the agent refuses: ask for status"):
            consult(tmp_path, never)
    finally:
        serving.stop()


def test_an_agent_that_is_silent_is_told(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as mute:
        mute.bind(str(tmp_path / SOCKET))
        mute.listen()
        with pytest.raises(KernelError, match=r"gave no answer for 0\.05 s"):
            consult(tmp_path, never, timeout_s=0.05)


def test_an_agent_that_may_not_be_asked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refused)
    with pytest.raises(KernelError, match="EACCES"):
        consult(tmp_path, never)


def test_an_opa_server_that_does_not_decide_is_no_good_health() -> None:
    plugins = SimpleNamespace(degraded={}, modes={})
    kernel = armed(KernelSide(), reports=[probe("a", "alive")], plugins=plugins)
    given = (kernel.facts, kernel.plugins, kernel.probes, kernel.types)
    deciding = {"deciding": "opa", "server": "http://x:1", "reason": "", "answered": 1}
    standing_in = {**deciding, "deciding": "embedded", "reason": "it cannot be reached"}
    well, ill = (diagnose(*given, (), (), agent=7, revision="r1", engine=each) for each in (deciding, standing_in))
    assert (well.healthy, ill.healthy) == (True, False)
    assert shown(well).startswith("All probes work; no rule is blind (0 rules, revision r1)\n")
    assert "The embedded engine decides instead of OPA at http://x:1: it cannot be reached" in shown(ill)
