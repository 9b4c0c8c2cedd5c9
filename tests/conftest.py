"""Fixtures that KRIe offers to all plugin authors, and what all tests here need."""

import gc
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("krie.testing.fixtures",)

# How long an example takes says how busy the machine is; what one run found, the next must find for itself.
settings.register_profile("krie", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("krie")


def pytest_configure() -> None:
    """Whoever ends a run of tests ends the guests and agents that it started: a SIGTERM is what Ctrl-C is."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def pytest_collection_finish() -> None:
    """What was imported stays to the end, and is nothing for whoever collects garbage to look at again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def engines_end_in_their_thread() -> Iterator[None]:
    """Tracebacks and hypothesis keep embedded engines in cycles, and only the thread that made one may collect it."""
    yield
    gc.collect()
    gc.freeze()  # what outlives a test would be looked at again after each that follows
