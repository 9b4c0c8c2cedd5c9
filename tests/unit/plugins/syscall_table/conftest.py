"""What tests of the plugin share."""

from pathlib import Path

import pytest

from .untouched import Kernel


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)
