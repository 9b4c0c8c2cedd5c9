"""What a look of syscall_table found, and could tell nobody of, is nobody's fault who is there when it is told."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from krie.events.core_maps import Limits
from krie.events.numbers import LONG, ONLY
from krie.kernel.maps import Map
from krie.plugins.syscall_table.maps import Compared
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule
from krie.testing.patience import wait_for

from .diversions import MODULE, diversion
from .lines import of
from .own_bpf import map_of
from .quiet_tracers import TRACEFS
from .syscall_hooks import HOOK, PLUGIN

_NEVER = 1 << 62
_FORKS = "for each in $(seq 5000); do (:); done"
_EVENT = TRACEFS / "events/sched/sched_kthread_stop/enable"
"""A tracepoint that hardly anything passes: where it is switched, code is patched."""


@contextmanager
def full_ring(agent: RunningAgent) -> Iterator[None]:
    """Nobody reads it, and processes that come and go may have all of it."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        with map_of(agent.process.pid, "krie_limits") as limits:
            limits.set(ONLY, replace(Limits.decode(limits.get(ONLY) or b""), common_bytes=_NEVER).encode())
        subprocess.run(["/bin/sh", "-c", _FORKS], check=True)
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


def stop_the_timer(due: Map) -> None:
    """Twice: one that was on its way has said when the next one is."""
    for _ in range(2):
        due.set(ONLY, LONG.encode(_NEVER))
        time.sleep(1)


@pytest.mark.needs("test_module", "perf_event", "kretprobe")
def test_what_was_found_before_is_not_theirs_who_are_there_now(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    words = diversion("table", "force", lacks)
    with (
        RunningAgent(tmp_path, plugins=PLUGIN, agent={"ring_mib": 1}) as agent,
        map_of(agent.process.pid, "syscall_table_pieces") as pieces,
        map_of(agent.process.pid, "syscall_table_due") as due,
    ):
        with full_ring(agent), test_module.effect(*words):
            wait_for(lambda: any(Compared.decode(each).older for each in pieces.array()))
            stop_the_timer(due)
            agent.process.send_signal(signal.SIGCONT)
            agent.settle()
            before = _EVENT.read_text()
            _EVENT.write_text("1" if before.startswith("0") else "0")
            _EVENT.write_text(before)
            line, *_ = agent.wait(HOOK)
        assert of(line, "where", "trigger", "owner") == ("table", "timer", MODULE)
