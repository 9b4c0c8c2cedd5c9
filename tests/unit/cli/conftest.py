"""What tests of commands share."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder that nobody else can change."""
    tmp_path.chmod(0o700)
    return tmp_path
