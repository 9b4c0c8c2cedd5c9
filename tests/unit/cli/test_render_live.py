"""How an event looks on the terminal of an agent: what matters of it comes first."""

from pathlib import Path
from typing import Any

import pytest
from krie.cli.render import SEVERITIES, console
from krie.cli.render_live import Live
from krie.events.event import EventType
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.testing.events import build
from rich.text import Text

from .shown import entry

RECORDING = Path(__file__).parents[3] / "docs/assets/run.ansi"
"""What the picture in the README is drawn from."""


def shown(capsys: pytest.CaptureFixture[str], *rules: dict[str, Any]) -> str:
    Live(console()).show(entry(decision={"action": "kill", "rules": list(rules)}))
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    return text


def rule(id_: str, severity: str, action: str = "log", title: str = "") -> dict[str, Any]:
    return {"id": id_, "action": action, "severity": severity, "title": title or f"Title of {id_}", "technique": ""}


def test_severity_and_title_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, rule("A", "critical", "kill"))
    assert text.startswith("critical Title of A 16:41:48.577 kill     a.b /bin/x (7, user 0, by /bin/sh) ")


@pytest.mark.parametrize(
    ("rules", "first"),
    [
        ([rule("A", "low", "kill"), rule("B", "high")], "high     Title of B "),
        ([rule("A", "high"), rule("B", "high", "override")], "high     Title of B "),
        ([rule("A", "no such", "kill"), rule("B", "low")], "low      Title of B "),
        ([rule("A", "")], "-        Title of A "),
    ],
)
def test_a_line_is_called_by_the_worst_of_its_rules(
    capsys: pytest.CaptureFixture[str], rules: list[dict[str, Any]], first: str
) -> None:
    text = shown(capsys, *rules)
    assert text.startswith(first)
    assert all(f" {each['id']}" in text for each in rules)


def test_nothing_that_no_rule_is_about_looks_severe(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys).startswith("-        16:41:48.577 ")


def test_lines_of_an_agent_that_did_not_tell_severities(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, {"id": "A", "action": "kill"}).startswith("-        16:41:48.577 ")


def test_the_worst_severity_is_the_last() -> None:
    assert list(SEVERITIES) == ["low", "medium", "high", "critical"]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            {
                "new_int": 0,
                "old_int": 2,
                "file_pos": 0,
                "length": 2,
                "old": "2\n",
                "new": "0\n",
                "name": "a/b",
                "x": True,
            }
            | {"change": "lower", "empty": ""},
            "name=a/b old='2' new='0' change=lower new_int=0 old_int=2 length=2",
        ),
        ({"operation": 7, "flags": ["a", "b"], "count": 0}, "flags=a,b operation=7"),
        ({"old_uid": 1000, "new_uid": 0, "comm": "x y"}, "comm='x y' old_uid=1000 new_uid=0"),
    ],
)
def test_texts_come_before_numbers_and_the_name_before_all(
    capsys: pytest.CaptureFixture[str], event: dict[str, Any], told: str
) -> None:
    Live(console()).show(entry(event=event))
    assert f" {told} " in capsys.readouterr().out


def test_the_readme_s_picture_shows_what_krie_shows(capsys: pytest.CaptureFixture[str]) -> None:
    sleep = {"tgid": 25209, "exe": "/usr/bin/sleep", "exe_known": True, "comm": "sleep"}
    bash = {"tgid": 25200, "exe": "/usr/bin/bash", "exe_known": True, "comm": "bash"}
    strace = {"tgid": 25210, "uid": 65534, "exe": "/usr/bin/strace", "exe_known": True, "comm": "strace"}
    seized = EventType(Ptrace).json(build(Ptrace, operation="seize", request=16902, target_tgid=25209))
    title = "An ordinary user takes control over another user's process"
    Live(console()).show(
        entry(
            time="2026-11-23T19:50:34.607973794Z",
            kind=Ptrace.NAME,
            process={**strace, "parent": bash},
            event={**seized, "target": sleep},
            decision={"action": "override", "rules": [rule("PTRACE001", "high", "override", title)]},
            would=["override"],
        )
    )
    assert capsys.readouterr().out in Text.from_ansi(RECORDING.read_text()).plain
