"""Readiness is told to the service manager that asked for it, once, and to nobody else."""

import os
import socket
from pathlib import Path

import pytest
from krie.agent.service_manager import tell_ready


def listening(address: str) -> socket.socket:
    """What a service manager has."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind(address)
    return made


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
    with listening(f"\0{path}" if abstract else path) as manager:
        tell_ready()
        tell_ready()
        assert manager.recv(100) == b"READY=1"
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    assert "NOTIFY_SOCKET" not in os.environ  # children have nothing to tell


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_ready()
    assert not caplog.records


def test_a_manager_that_has_gone_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell_ready()
    assert [each.levelname for each in caplog.records] == ["WARNING"]
