"""Fixtures that KRIe offers to all plugin authors, and what all tests here need."""

import gc
from collections.abc import Iterator

import pytest

pytest_plugins = ("krie.testing.fixtures",)


@pytest.fixture(autouse=True, scope="module")
def engines_end_in_their_thread() -> Iterator[None]:
    """Tracebacks and hypothesis keep embedded engines in cycles, and only the thread that made one may collect it."""
    yield
    gc.collect()
