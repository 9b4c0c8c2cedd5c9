"""What tests of the plugin share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .compared_code import Memory
from .untouched import Kernel


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = os.memfd_create("reference", os.MFD_ALLOW_SEALING)
    yield descriptor
    os.close(descriptor)
