"""What tests of policies share."""

from pathlib import Path

import pytest

from .linted import FINE, configure


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of policies, which is the working folder; no tool lies beside it or in PATH."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/site.rego").write_text(FINE)
    (tmp_path / "bin").mkdir()
    configure(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
