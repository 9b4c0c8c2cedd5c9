"""Whoever leads system calls away from the kernel is killed where that is enforced."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.module import TestModule
from krie.testing.patience import PATIENCE_S

from .diversions import diversion
from .lines import rules_of
from .syscall_hooks import HOOK

_LOAD = """
import ctypes, os, sys, time
FINIT_MODULE = 313
assert ctypes.CDLL(None).syscall(FINIT_MODULE, os.open(sys.argv[1], os.O_RDONLY), sys.argv[2].encode(), 0) == 0
time.sleep(600)
"""


@pytest.mark.needs("test_module", "raw_tracepoint", "kprobe")
def test_who_is_caught_is_killed_where_that_is_enforced(
    alone: None, test_module: TestModule, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    words, *numbers = diversion("table", "force", lacks)
    parameter = " ".join([*words.split()[1:], *(f"{each:x}" for each in numbers)])
    test_module.unload()
    load = [sys.executable, "-c", _LOAD, str(test_module.file), f'diverted="{parameter}"']
    with RunningAgent(tmp_path, plugins={"syscall_table": {"mode": "enforce", "code": False}}) as agent:
        loader = subprocess.Popen(load)  # insmod has ended before user space decides
        assert loader.wait(PATIENCE_S) == -signal.SIGKILL
        (line,) = agent.wait(HOOK)
        assert line["process"]["tgid"] == loader.pid
        assert {"killed", "signalled"} & set(line["done"])  # it may take its time to end
        assert {"SYSCALL001", "SYSCALL002"} <= rules_of(line)
        test_module.unload()
        test_module.load()  # which diverts nothing, and is nobody's fault
        agent.wait(HOOK, count=2)
        agent.settle()
        assert len(agent.lines(HOOK)) == 2
