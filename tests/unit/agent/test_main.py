"""The agent's process: what ends it before an agent starts, and its exit codes."""

import contextlib
import importlib
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from krie.agent.main import main
from krie.errors import ConfigError, ExitCode

from .setting import signals_as_before  # noqa: F401 - main() hears some


def test_all_that_an_agent_imports_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin imports only when one of its hooks is called, too."""
    loose = tmp_path / "loose_module_of_others.py"
    loose.write_text("raise AssertionError('it ran')")
    loose.chmod(0o666)
    monkeypatch.syspath_prepend(str(tmp_path))

    def start(*_: object, **__: object) -> NoReturn:
        importlib.import_module(loose.stem)
        raise AssertionError

    monkeypatch.setattr("krie.agent.main.Agent", start)
    config = tmp_path / "krie.toml"
    config.write_text("")
    tmp_path.chmod(0o700)
    with contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())) as said:
        assert main(["--config", str(config)]) == ExitCode.USAGE
    assert f"{loose}: can be changed by other users" in said.buffer.getvalue().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_undoes_a_start_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    done: list[object] = []

    def start(_config: object, _place: str, stack: contextlib.ExitStack, **_: object) -> NoReturn:
        stack.callback(done.append, "undone")
        signal.raise_signal(number)
        raise AssertionError

    def end_by(number: int) -> int:
        done.append(number)
        return 128 + number

    monkeypatch.setattr("krie.agent.main.Agent", start)
    monkeypatch.setattr("krie.agent.main.end_by", end_by)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # who runs this may ignore it
    config = tmp_path / "krie.toml"
    config.write_text("")
    config.chmod(0o600)
    assert main(["--config", str(config)]) == 128 + number
    assert done == ["undone", number]
    assert capsys.readouterr().err.endswith(f"krie: {number.name} ended the start\n")


def test_a_plugin_that_is_not_there_is_told_and_nothing_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "krie.toml"
    config.write_text("[plugins.runtime_integrty]\n")
    config.chmod(0o600)
    assert main(["--config", str(config)]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "did you mean 'runtime_integrity'?" in said
    assert "arming" not in said


def test_a_signal_that_was_lost_ends_the_start_all_the_same() -> None:
    """As in a destructor, where Python drops whatever is raised; a second one cuts nothing short."""
    code = """
import os, signal
from krie.interruption import Interrupted, Interruption
interruption = Interruption()
interruption.check()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Interrupted:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
try:
    interruption.check()
except Interrupted as asked:
    print(asked.signal.name)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "SIGTERM\n"


def test_who_is_ended_by_a_signal_says_so() -> None:
    code = "from krie.interruption import *; import signal; end_by(signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "gone.toml")]) == ExitCode.USAGE
    assert "cannot be read" in capsys.readouterr().err
    config = tmp_path / "krie.toml"
    config.write_text("[agent]\nring_mib = 3\n")
    assert main(["--config", str(config)]) == ConfigError.exit_code
    assert "power of two" in capsys.readouterr().err
