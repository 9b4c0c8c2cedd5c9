"""What tests of reviews share."""

from pathlib import Path

import pytest

from ..recorded_journal import sources
from .busy_journal import EVERYTHING, busy_journal
from .site_policy import repository


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return busy_journal(tmp_path / "journal.jsonl", sources(EVERYTHING))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return repository(tmp_path)
