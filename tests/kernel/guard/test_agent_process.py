"""Nobody but tgid 1 signals, traces or slows the process of an agent that guards itself. In guests only."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.testing.agent import Line, RunningAgent

from .attempts import attempts

pytestmark = pytest.mark.needs("guest", "kprobe")
libc = ctypes.CDLL(None, use_errno=True)


def test_every_hook_is_there(guarding: RunningAgent) -> None:
    states = {
        each["name"]: each["state"] for each in ask(guarding.run_dir, {"ask": "status"}, guarding.timeout_s)["probes"]
    }
    guard = {name: state for name, state in states.items() if name.startswith("guard.")}
    assert set(guard.values()) <= {"alive", "attached"}
    assert {name for name, state in guard.items() if state == "attached"} <= {"guard.task_movememory"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP])
def test_it_takes_no_signals(guarding: RunningAgent, number: int) -> None:
    with pytest.raises(PermissionError):
        os.kill(guarding.process.pid, number)
    os.kill(guarding.process.pid, 0)  # asks whether it lives, no more
    attempts(guarding, "agent_signalled")


def test_it_is_not_traced(guarding: RunningAgent) -> None:
    assert libc.syscall(101, 16, guarding.process.pid, 0, 0) == -1
    assert ctypes.get_errno() == 1
    with pytest.raises(PermissionError):
        open(f"/proc/{guarding.process.pid}/mem", "rb").close()
    descriptor = os.pidfd_open(guarding.process.pid)
    assert libc.syscall(438, descriptor, 3, 0) == -1  # pidfd_getfd
    assert ctypes.get_errno() == 1
    os.close(descriptor)
    attempts(guarding, "agent_traced", 3)


def test_what_it_started_is_guarded_too(guarding: RunningAgent) -> None:
    """Its evaluators and its keeper: stopped or traced, they would decide and keep nothing."""
    tasks = Path(f"/proc/{guarding.process.pid}/task")
    children = [int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()]
    assert len(children) > 1
    for child in children:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            with pytest.raises(PermissionError):
                os.kill(child, number)
        assert libc.syscall(101, 16, child, 0, 0) == -1
        assert ctypes.get_errno() == 1
        assert not Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].startswith(" T")
    attempts(guarding, "agent_signalled", 2 * len(children))


def test_its_limits_and_priorities_stay(guarding: RunningAgent) -> None:
    agent = guarding.process.pid
    for kind, limits in ((resource.RLIMIT_NOFILE, (3, 4096)), (resource.RLIMIT_CPU, (1, 1))):
        with pytest.raises(PermissionError):
            resource.prlimit(agent, kind, limits)
    resource.prlimit(agent, resource.RLIMIT_NOFILE)
    attempts(guarding, "agent_limited", 2)
    slows: tuple[Callable[[], object], ...] = (
        lambda: os.setpriority(os.PRIO_PROCESS, agent, 19),
        lambda: os.sched_setscheduler(agent, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.sched_setaffinity(agent, {0}),
    )
    for slow in slows:
        with pytest.raises(PermissionError):
            slow()
    assert libc.syscall(251, 1, agent, 3 << 13) == -1  # ioprio_set, idle
    assert ctypes.get_errno() == 1
    attempts(guarding, "agent_slowed", 4)


def test_no_file_signals_it(guarding: RunningAgent) -> None:
    loaded = len(guarding.lines("krie.policy"))
    mine, theirs = socket.socketpair()
    with mine, theirs:
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGHUP)
        fcntl.fcntl(mine, fcntl.F_SETOWN, guarding.process.pid)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        told = sum(each["event"]["count"] for each in guarding.lines("krie.guarded", _signalled))
        theirs.send(b"x")
        attempts(guarding, "agent_signalled", told + 1)
    guarding.settle()
    assert len(guarding.lines("krie.policy")) == loaded


def test_nor_one_that_it_wakes_itself(guarding: RunningAgent) -> None:
    """Its answer makes a socket of ours readable, in its own context."""
    loaded = len(guarding.lines("krie.policy"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mine:
        mine.connect(str(guarding.run_dir / "agent.sock"))
        fcntl.fcntl(mine, fcntl.F_SETSIG, signal.SIGHUP)
        fcntl.fcntl(mine, fcntl.F_SETOWN, guarding.process.pid)
        fcntl.fcntl(mine, fcntl.F_SETFL, os.O_ASYNC)
        mine.send(b'{"ask": "status"}')
        guarding.wait("krie.guarded", lambda line: _signalled(line) and not line["event"]["stranger_tgid"])
    guarding.settle()
    assert len(guarding.lines("krie.policy")) == loaded


def _signalled(line: Line) -> bool:
    return bool(line["event"]["attempt"] == "agent_signalled")


def test_nothing_is_written_to_its_process(guarding: RunningAgent) -> None:
    agent = guarding.process.pid
    for name in (f"{agent}/oom_score_adj", f"{agent}/comm", f"{agent}/task/{agent}/comm", f"{agent}/clear_refs"):
        with pytest.raises(PermissionError):
            os.open(f"/proc/{name}", os.O_WRONLY)
    os.close(os.open("/proc/self/oom_score_adj", os.O_WRONLY))
    attempts(guarding, "proc_written", 4)


def test_sysrq_is_not_triggered(guarding: RunningAgent, tmp_path: Path) -> None:
    """It would end every process; by whatever mount of procfs."""
    subprocess.run(["mount", "-t", "proc", "proc", tmp_path], check=True)
    try:
        for folder in (Path("/proc"), tmp_path):
            with pytest.raises(PermissionError):
                os.open(folder / "sysrq-trigger", os.O_WRONLY)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    attempts(guarding, "sysrq_written", 2)


def test_others_are_signalled_as_ever(guarding: RunningAgent) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (64, 64))
        os.sched_setaffinity(child.pid, {0})
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_second_agent_says_that_one_runs(guarding: RunningAgent) -> None:
    command = [sys.executable, "-I", "-m", "krie.agent", "--config", str(guarding.config), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert str(guarding.process.pid) in done.stderr
