"""What tests of enforcement share."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from krie.enforce import kill


@pytest.fixture(autouse=True)
def time_to_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is that runs these tests."""
    monkeypatch.setattr(kill, "DIES_WITHIN_MS", 60_000)


@pytest.fixture
def victim() -> Iterator[int]:
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    yield child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
