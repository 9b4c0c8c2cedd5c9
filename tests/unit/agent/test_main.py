"""The agent's process: what ends it before an agent starts, and its exit codes."""

import contextlib
import importlib
import io
from pathlib import Path
from typing import NoReturn

import pytest
from krie.agent.main import main
from krie.errors import ConfigError, ExitCode


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


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "gone.toml")]) == ExitCode.USAGE
    assert "cannot be read" in capsys.readouterr().err
    config = tmp_path / "krie.toml"
    config.write_text("[agent]\nring_mib = 3\n")
    assert main(["--config", str(config)]) == ConfigError.exit_code
    assert "power of two" in capsys.readouterr().err
