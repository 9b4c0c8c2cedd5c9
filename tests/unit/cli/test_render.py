"""What people see of a running agent: everything that needs their attention is there."""

import io
from typing import Any

import pytest
from krie.cli import render, render_review
from krie.review.report import ReviewReport, Table
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from .shown import QUIET


def shown(**changes: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    render.status(console, {**QUIET, **changes})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_quiet_agent() -> None:
    assert shown().splitlines() == [
        "Agent 7, up 60 s, version 1.2, policy r1: p enforces, guards itself",
        "200 events, 1.5/s recently, none lost, memo hit rate 25 %",
        "1 of 1 probes alive",
        "decided in the kernel, from the first occurrence on: SYSCTL001",
        "",
        "0 poisoned (of 18 guarded operations 18 are refused to them), 0 verdicts on single operations",
    ]


def test_services_that_do_not_work() -> None:
    text = shown(services={"bundle": "", "status": "answers [500]\x1b[31m"})
    assert "service status: answers [500]" in text
    assert "\x1b" not in text
    assert "bundle" not in text


def test_who_decides_where_an_opa_server_is_to() -> None:
    engine = {"deciding": "opa", "server": "unix:///run/opa.sock", "reason": "", "answered": 7}
    assert "OPA at unix:///run/opa.sock decides: 7 answers" in shown(engine=engine)
    text = shown(engine={**engine, "deciding": "embedded", "reason": "it cannot be reached: [x]"})
    assert "The embedded engine decides instead of OPA at unix:///run/opa.sock: it cannot be reached: [x]" in text


def test_what_needs_attention() -> None:
    text = shown(
        lost=3,
        missed=4,
        evicted=5,
        probes=[{"name": "p.a", "state": "silent", "by": "lsm"}, {"name": "p.b", "state": "missing", "by": None}],
        degraded={"q": "raised [x]"},
        poisoned=[{"tgid": 42, "start_time": 1, "comm": "[sh]", "rule": "R1", "left_s": 9}],
        poisoned_count=1,
        poison_left_out=6,
        host={"rule": "R2", "left_s": 5},
        breakers=[{"rule": "R3", "processes": 4, "of": 3, "tripped": True}],
    )
    for each in (
        "3 lost",
        "4 runs of programs left out",
        "5 live processes forgotten",
        "0 of 2 probes alive",
        "p.a    silent   lsm",
        "p.b    missing  -",
        "degraded q: raised [x]",
        "1 poisoned",
        "6 times a user had no room for another poisoned process",
        "42    [sh]  R1    9 s",
        "the whole host is bound by R2, 5 s left",
        "R3    4 of 3     tripped",
    ):
        assert each in text, text


def test_a_narrow_table_cuts_nothing() -> None:
    console = Console(file=io.StringIO(), width=30)
    console.print(render.table("T", ("a", "b"), [("x" * 60, "y" * 70)]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert (text.count("x"), text.count("y")) == (60, 70)
    assert max(map(len, text.splitlines())) == 30


def test_no_text_is_markup() -> None:
    console = Console(file=io.StringIO(), width=300)
    wild = "[red]a[/] [link=x]b :skull: \\[bold] [/nothing]"
    console.print(render.table(wild, (wild,), [(wild,), ((wild, "bold"),), (render.lines(wild),)]))
    console.print(render.line(wild, (wild, "bold"), render.told(wild)))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(wild) == 8


def test_what_nobody_made_visible_is_so_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    console = render.console()
    console.print("\x1b[2J[red]x\u202e")
    console.print(Text("\x1b[2J"), Panel("\x9b"))
    said = capsys.readouterr().out
    assert said.splitlines()[0] == r"\x1b[2J[red]x\u202e"
    assert all(line.isprintable() for line in said.splitlines())


def test_a_heading_of_a_review_is_one_line_above_a_narrow_table() -> None:
    shown = io.StringIO()
    found = ReviewReport("t", (), (Table("What else is said of rules", ("rule", "what"), (("A", "is new"),)),), ())
    render_review.report(Console(file=shown, width=100), found)
    assert "\n\nWhat else is said of rules\nrule  what\nA     is new\n" in "\n".join(
        each.rstrip() for each in shown.getvalue().split("\n")
    )
