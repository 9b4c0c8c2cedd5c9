"""What is forked for a test is as if it had been executed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.errors import ExitCode
from krie.testing.agent_process import AGENTS, AgentProcess, Forks, executed

MAIN = """
import json, os, signal, time

def main(arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and theirs, ignore it
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = os.ttyname(0)
    except OSError:
        terminal = ""  # it has none that controls it
    found = {
        "tgid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "terminal": terminal,
        "exe": os.readlink("/proc/self/exe"), "argv": sys.argv[1:], "folder": os.getcwd(), "path": sys.path[0],
        "variable": os.environ.get("KRIE_OF_A_TEST"),
        "open": [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
    }
    print(json.dumps(found), flush=True)
    print("wrong", file=sys.stderr)
    while arguments[0] == "stays":
        time.sleep(60)
    return 3
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks(MAIN)
    yield made
    made.close()


def said(process: AgentProcess) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def ended(process: AgentProcess) -> int:
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()
    return process.wait(60)


def test_it_is_our_child_with_what_it_was_given(forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KRIE_OF_A_TEST", str(number))
        with (folder / "stderr").open("wb") as stderr:
            process = forks.fork(["ends", str(number)], [f"plugins {number}"], stderr)
        found = said(process)
        assert ended(process) == 3
        assert process.returncode == process.poll() == 3
        assert (found["tgid"], found["parent"]) == (process.pid, os.getpid())
        assert (found["session"], found["exe"]) == (os.getsid(0), os.path.realpath(sys.executable))
        assert (found["argv"], found["folder"]) == (["ends", str(number)], str(folder))
        assert (found["path"], found["variable"]) == (f"plugins {number}", str(number))
        assert set(found["open"]) == {"0", "1", "2"}
        assert (folder / "stderr").read_text() == "wrong\n"


def test_it_gets_a_session_with_a_terminal(forks: Forks) -> None:
    terminals = os.openpty()
    with open(os.devnull, "wb") as stderr:
        process = forks.fork(["stays"], [], stderr, terminals[1])
    found = said(process)
    assert (found["session"], found["terminal"]) == (process.pid, os.ttyname(terminals[1]))
    os.write(terminals[0], b"\3")
    assert ended(process) == 1  # as Python does by default
    for each in terminals:
        os.close(each)


def test_it_is_waited_for_and_gets_signals(forks: Forks) -> None:
    with open(os.devnull, "wb") as stderr:
        process = forks.fork(["stays"], [], stderr)
    said(process)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert ended(process) == -signal.SIGTERM
    process.kill()


def test_who_forks_is_replaced_where_it_was_killed(forks: Forks) -> None:
    for _ in range(2):
        with open(os.devnull, "wb") as stderr:
            process = forks.fork(["ends"], [], stderr)
        said(process)
        assert ended(process) == 3
        os.kill(forks.tgid, signal.SIGKILL)
        os.waitid(os.P_PID, forks.tgid, os.WEXITED | os.WNOWAIT)


def test_agents_end_alike(tmp_path: Path) -> None:
    agents = Forks(AGENTS)
    ways: tuple[Callable[..., AgentProcess], ...] = (executed, agents.fork)
    for number, begin in enumerate(ways):
        with (tmp_path / str(number)).open("wb") as stderr:
            process = begin(["--config", str(tmp_path / "none.toml")], [], stderr, None)
        assert ended(process) == ExitCode.USAGE
    agents.close()
    first, second = ((tmp_path / str(number)).read_text() for number in range(2))
    assert first == second
    assert "none.toml" in first
