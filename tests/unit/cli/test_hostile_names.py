"""Every command on a terminal, with names, paths, texts and answers that others chose to steer it."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from krie.agent.control import Control
from krie.cli.main import krie
from krie.cli.render import console
from krie.cli.render_live import Live

from ..agent.diagnosed import contained, found
from .shown import QUIET, entry

MARK = "owned"
EVIL = f"\x1b]0;{MARK}\x07\x1b[2J\x9b\u202e\u2066\u200b[red]:skull:[\nkrie: forged\r"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b\u202e\u2066\u200b[red]:skull:["
"""What a terminal shows of it, up to its line break."""
_RICH = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AKG])|\r")
"""Colours, the cursor hidden and shown, and lines that are cleared: what rich itself writes."""
_RUN = "import sys; from krie.cli.main import main; sys.argv[0] = 'krie'; main()"


def commands(group: click.Group, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            each.list_commands(click.Context(each))  # which imports those of a group that is imported when asked for
            yield from commands(each, (*place, name))
        else:
            yield (*place, name)


def on_terminal(folder: Path, *arguments: str, typed: bytes = b"", **environment: str) -> tuple[int, str]:
    """Run a command on a terminal of 1,000 columns; returns its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 1000))
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    env.pop("KRIE_CONFIG", None)
    command = [sys.executable, "-c", _RUN, *arguments]
    child = subprocess.Popen(
        command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert child.stdin is not None
    child.stdin.write(typed)
    child.stdin.close()
    got = b""
    while True:
        if not select.select([ours], [], [], 120)[0]:
            child.kill()
            raise AssertionError(f"hangs; it wrote {got!r}")
        try:
            got += os.read(ours, 1 << 16)
        except OSError:  # the terminal's other end is closed
            break
    os.close(ours)
    return child.wait(), got.decode(environment.get("PYTHONIOENCODING", "utf-8"))


def check(got: str) -> None:
    text = _RICH.sub("", got.replace("\r\n", "\n"))
    hidden = {each for line in text.split("\n") for each in line if not each.isprintable()}
    assert not hidden, (hidden, got)
    assert not re.search(r"^krie: forged", text, re.MULTILINE), got
    assert "\N{SKULL}" not in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a folder of policies and a kernel with such names, and configurations that name them."""
    made = tmp_path_factory.mktemp("hostile")
    made.chmod(0o700)
    policies = made / EVIL
    policies.mkdir(mode=0o700)
    rule = (
        f"# METADATA\n# title: {json.dumps(EVIL)}\n# custom:\n#   id: EVIL001\n#   severity: low\n#   action: log\n"
        f'rules contains {{"id": "EVIL001", "action": "log"}} if input.event.name == {json.dumps(EVIL)}\n'
    )
    (policies / f"{EVIL}.rego").write_text(f"package krie.evil\n\n{rule}")
    (policies / "image").write_bytes(b"no kernel")
    paths = (
        f"[policy]\nopa = ''\npaths = [{json.dumps(str(policies))}]\n[agent]\nrun_dir = {json.dumps(str(policies))}\n"
    )
    configure(made / "krie.toml", paths + "[plugins.runtime_integrity]\n")
    configure(made / f"wrong{EVIL}.toml", f"{json.dumps(EVIL)} = 1\n")
    configure(made / f"no{EVIL}.toml", f"[plugins.{json.dumps('no' + EVIL)}]\n")
    broken = made / f"broken{EVIL}"
    broken.mkdir(mode=0o700)
    (broken / f"{EVIL}.rego").write_text(f"package krie.evil\n\nrules contains {json.dumps(EVIL)} if nowhere\n")
    configure(made / "broken.toml", f"[policy]\nopa = ''\npaths = [{json.dumps(str(broken))}]\n")
    return made


def configure(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


CASES: list[tuple[int, tuple[str, ...]]] = [
    (2, ("run", "--config", f"none{EVIL}")),
    (2, ("run", "--config", f"wrong{EVIL}.toml")),
    (2, (EVIL,)),
    (2, ("run", f"--{EVIL}")),
    (2, ("doctor", "--config", EVIL)),
    (2, ("integrity", EVIL)),
    (2, ("compile", "--config", f"no{EVIL}.toml", "--output", EVIL, "--vmlinux", f"{EVIL}/image")),
    (2, ("status", "--config", f"wrong{EVIL}.toml", EVIL)),
    (8, ("clear", "--rule", EVIL)),
    (2, ("clear", EVIL)),
    (2, ("plugins", "--config", f"no{EVIL}.toml")),
    (2, ("plugins", "--load", "--config", f"wrong{EVIL}.toml")),
    (2, ("events", "--config", f"no{EVIL}.toml")),
    (2, ("events", EVIL)),
    (2, ("config", "init", "--output", f"wrong{EVIL}.toml")),
    (2, ("config", "check", "--config", f"no{EVIL}.toml")),
    (2, ("plugin", "new", EVIL)),
    (2, ("cfi", "derive", "--vmlinux", EVIL)),
    (2, ("cfi", "diff", EVIL, EVIL)),
    (2, ("cfi", "learn", EVIL, "--vmlinux", EVIL)),
    (2, ("cfi", "explain", EVIL, "--vmlinux", f"{EVIL}/image")),
    (0, ("policy", "check")),
    (4, ("policy", "check", "--config", "broken.toml")),
    (4, ("policy", "explain", EVIL)),
    (0, ("policy", "explain")),
    (0, ("policy", "explain", "EVIL001")),
    (0, ("policy", "explain", "--html")),
    (2, ("policy", "verify", "--config", EVIL)),
    (0, ("policy", "lint")),
    (4, ("policy", "lint", "--config", "broken.toml")),
    (4, ("policy", "lint", "--config", "broken.toml", "--format", "github")),
    (0, ("policy", "lint", EVIL)),
    (2, ("policy", "lint", "--require", EVIL)),
    (2, ("policy", "lint", "--write", EVIL)),
    (2, ("policy", "lint", "--write", f"json=none/{EVIL}")),
    (2, ("policy", "schemas", f"krie.toml/{EVIL}")),
    (2, ("policy", "bundle", "--output", f"none/{EVIL}")),
    (0, ("policy", "test")),
    (4, ("policy", "eval")),
    (2, ("policy", "replay", EVIL)),
    (4, ("policy", "diff", f"git:{EVIL}")),
    (0, ("policy", "diff", EVIL)),
    (12, ("policy", "replay", "krie.toml", "--against", EVIL)),
    (2, ("lab", "kernels", EVIL)),
    (7, ("lab", "fetch", EVIL)),
    (7, ("lab", "run", "--kernel", EVIL, "--", EVIL)),
    (7, ("lab", "shell", "--kernel", EVIL)),
]


def test_no_command_is_left_out() -> None:
    cases = [arguments for _, arguments in CASES]
    assert not [each for each in commands(krie) if not any(case[: len(each)] == each for case in cases)]


@pytest.mark.parametrize(("status", "arguments"), CASES, ids=range(len(CASES)))
def test_a_command(folder: Path, status: int, arguments: tuple[str, ...]) -> None:
    code, got = on_terminal(folder, *arguments, typed=json.dumps({"kind": EVIL, "event": 1}).encode())
    check(got)
    assert code == status, got


def hostile(value: Any) -> Any:
    """A document with the same shape, all texts of which that no code compares are such ones."""
    if isinstance(value, dict):
        return {key: inner if key in ("state", "from", "mode") else hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return f"{EVIL}[/]{value}" if isinstance(value, str) else value


STATUS = {
    **QUIET,
    "degraded": {EVIL: "why"},
    "poisoned": [{"tgid": 42, "start_time": 1, "comm": "sh", "rule": "R1", "left_s": 9}],
    "host": {"rule": "R2", "left_s": 5},
    "breakers": [{"rule": "R3", "processes": 4, "of": 3, "tripped": True}],
    "probes": [{"name": "p.b", "state": "missing", "by": None}],
    "rearmed": ["R3"],
    "verdicts": 1,
}


@pytest.fixture
def agent(folder: Path) -> Iterator[Path]:
    """Somebody who answers as an agent would, with such texts; yields the folder of its configuration."""
    doctor = found(*contained("missing", "silent")).to_json()
    doctor["problems"], doctor["degraded"], doctor["healthy"] = ["a problem"], {EVIL: "why"}, False
    doctor["blind_rules"] = [{"id": "R1", "place": "x.rego:1", "why": "why"}]
    answers = {"status": STATUS, "clear": STATUS, "doctor": doctor}
    control = Control(folder / EVIL, lambda request, _: hostile(answers[request["ask"]]))
    poll, end = select.epoll(), threading.Event()
    control.wait_on(poll)

    def serve() -> None:
        while not end.is_set():
            poll.poll(0.01)
            control.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder
    end.set()
    thread.join()
    control.close()
    poll.close()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("arguments", [("status",), ("doctor", "--timings"), ("clear", "--all")])
def test_an_answer_of_an_agent(agent: Path, arguments: tuple[str, ...], encoding: str) -> None:
    code, got = on_terminal(agent, *arguments, PYTHONIOENCODING=encoding)
    check(got)
    assert SHOWN in got
    assert code == (5 if "doctor" in arguments else 0)  # it says that it is not healthy


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_exact_in_every_encoding(agent: Path, encoding: str) -> None:
    code, got = on_terminal(agent, "clear", "--all", "--json", PYTHONIOENCODING=encoding)
    assert (code, json.loads(got)) == (0, hostile(STATUS))
    check(got)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_narrow_terminal_of_any_encoding(folder: Path, encoding: str) -> None:
    code, got = on_terminal(folder, "policy", "check", COLUMNS="40", PYTHONIOENCODING=encoding)
    assert code == 0
    check(got)
    assert "\\u2026" not in got.replace("\r\n", "").replace(" ", "")


@pytest.mark.parametrize("known", [True, False])
def test_an_event_is_one_line(known: bool, capsys: pytest.CaptureFixture[str]) -> None:
    wild = hostile(entry(would=["kill"], done=["killed"]))
    wild["decision"]["action"] = wild["decision"]["rules"][0]["action"] = "log"
    wild["process"]["exe_known"] = wild["process"]["parent"]["exe_known"] = known
    Live(console()).show(wild)
    got = capsys.readouterr().out
    check(got)
    assert got.count("\n") == 1
    assert got.count(SHOWN) >= 10


def test_a_name_with_blanks_cannot_pass_for_more_than_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    process = {**entry()["process"], "exe": "/tmp/sh (1, user 0, by /sbin/init) x=1"}
    Live(console()).show(entry(process=process))
    assert "'/tmp/sh (1, user 0, by /sbin/init) x=1' (7, user 0, by /bin/sh)" in capsys.readouterr().out


def test_the_start_and_the_end_of_an_agent(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(console())
    probe = {"plugin": "p", "probe": "q", "state": "missing", "alternative": "", "reason": "why"}
    started = {"krie_version": "1", "armed_ms": 5, "release": "6", "alive": 1, "probes": 2, "revision": "r"}
    live.show({"kind": "krie.probe", "event": hostile(probe)})
    live.show({"kind": "krie.started", "event": hostile(started)})
    live.show({"kind": "krie.stopped", "event": hostile({"reason": "x", "remembered": 1, "events": 2, "lost": 0})})
    got = capsys.readouterr().out
    check(got)
    assert got.count(SHOWN) >= 7
