"""What tests of the agent share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.testing.patience import PATIENCE_S

from ..switched_kernel import kernel  # noqa: F401 - a fixture
from .setting import Setting, all_logs, signals_as_before  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def looks_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those at policies' folders, however busy the machine is that runs these tests."""
    monkeypatch.setattr("krie.policy.lookout._WAIT_S", PATIENCE_S)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    with made.stack:
        yield made
    assert made.ring.closed
    assert made.detached
