"""Who covers what the agent reads of the kernel deceives nobody, and holds nobody up. In guests only."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule

from .enforcement.answers import status

pytestmark = [pytest.mark.needs("test_module"), pytest.mark.needs("fentry", "fmod_ret")]
HIDDEN = "runtime_integrity.hidden_module"
FORGED = {
    "modules": "krie_test 16384 0 - Live 0xffffffffc0000000\nforged 16384 0 - Live 0xffffffffc0010000\n",
    "schedstat": "1 1 1\n",
}
LYING, EMPTY, SILENT = "by a forged one", "by nothing", "by who gives no answer"


@pytest.fixture
def folder() -> Iterator[Path]:
    """What a guest has as tmp_path holds no FIFO."""
    with tempfile.TemporaryDirectory(dir="/run") as made:
        yield Path(made)


@pytest.mark.parametrize("how", [LYING, EMPTY, SILENT])
def test_covered_files_deceive_nobody(enforcer: RunningAgent, test_module: TestModule, folder: Path, how: str) -> None:
    """A module that hides is missing in the true list; that the agent was stopped its true account tells."""
    tgid = enforcer.process.pid
    hidden, gaps = (len(enforcer.lines(kind)) for kind in (HIDDEN, "krie.gap"))
    accounts = [Path(f"/proc/{tgid}/schedstat"), Path(f"/proc/{tgid}/task/{tgid}/schedstat")]
    with covered([Path("/proc/modules"), *accounts], how, folder):
        test_module.unload()
        test_module.load()
        with test_module.effect("hide", "list"):
            line = enforcer.wait(HIDDEN, count=hidden + 1)[-1]
            assert line["event"]["name"] == test_module.name
            assert set(line["event"]["missing"]) - {"kallsyms"} == {"list", "proc"}
        os.kill(tgid, signal.SIGSTOP)
        time.sleep(5)
        if how == LYING:
            (folder / "schedstat").write_text("900000000000 900000000000 2\n")  # it was busy, says this
        os.kill(tgid, signal.SIGCONT)
        gap = enforcer.wait("krie.gap", count=gaps + 1)[-1]
        assert gap["event"]["gap_s"] >= 3
        assert status(enforcer)["modes"]["runtime_integrity"] == "enforce"  # it answers
    enforcer.settle()
    told: list[Line] = enforcer.lines(HIDDEN)
    assert len(told) == hidden + 1, told


@contextmanager
def covered(files: list[Path], how: str, folder: Path) -> Iterator[None]:
    """Mount something over each of these files."""
    done: list[Path] = []
    try:
        for file in files:
            source = Path(os.devnull) if how == EMPTY else folder / file.name
            if how == LYING:
                source.write_text(FORGED[file.name])
            elif how == SILENT and not source.exists():
                os.mkfifo(source)
            subprocess.run(["mount", "--bind", source, file], check=True)
            done.append(file)
        yield
    finally:
        for file in reversed(done):
            subprocess.run(["umount", file], check=True)
