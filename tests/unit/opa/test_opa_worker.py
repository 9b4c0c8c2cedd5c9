"""The process that talks to an OPA server is replaced when somebody ends or stops it, and nobody waits for it."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie import fork_server
from krie.child import Child
from krie.opa.server import Change
from krie.testing.patience import PATIENCE_S

from ..opa_servers import running
from .delegated import SLACK_S, Setting, event, sources


def test_a_stopped_or_killed_worker_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url, timeout_ms=1000)
    for number, why in ((signal.SIGKILL, "was ended by SIGKILL"), (signal.SIGSTOP, "hangs")):
        setting.until_opa()
        before = setting.server.worker
        assert before is not None
        assert Path(f"/proc/{before}/comm").read_text() == "krie-opa\n"
        os.kill(before, number)
        started = time.monotonic()
        assert setting.decided(event(1)) == "embedded"
        assert time.monotonic() - started < 1 + SLACK_S
        assert why in setting.changes()[-1].reason
        setting.until_opa()
        assert setting.decided(event(1)) == "opa"
        assert setting.server.worker != before


def test_nobody_waits_for_a_process_that_forks_slowly(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one in a frozen cgroup, of which nothing tells that it is stopped."""
    monkeypatch.setattr(fork_server, "_ANSWERS_WITHIN_S", 2 * PATIENCE_S)
    monkeypatch.setattr(Child, "stopped", False)
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    slow = setting.server._forks.tgid
    os.kill(slow, signal.SIGSTOP)
    started = time.monotonic()
    for number in range(20):
        assert setting.decided(event(number)) == "embedded"
    assert setting.server.worker is None
    os.kill(slow, signal.SIGCONT)
    setting.until_opa()
    assert time.monotonic() - started < PATIENCE_S
    assert setting.changes() == [Change("opa", "")]  # it was late, and never wrong
    assert setting.server._forks.tgid == slow


def test_a_process_that_forks_nothing_is_replaced(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Child, "stopped", False)
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    hangs = setting.server._forks.tgid
    os.kill(hangs, signal.SIGSTOP)
    monkeypatch.setattr(fork_server, "_ANSWERS_WITHIN_S", 0.0)
    setting.server.look(setting.revision)
    assert setting.server._forks.tgid != hangs
    monkeypatch.undo()
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"
