"""What tests of the agent's side of loading ask for, and what their children answer."""

import os
from pathlib import Path

from krie.kernel.standing import Standing
from krie.loader.messages import Loaded, Request, SensorRequest

ANSWERS_WITHIN_S = 120


def request(*names: str) -> Request:
    return Request(tuple(SensorRequest(name, (), (), (), (), (), "") for name in names), 16, False)


def loaded(*names: str, attached: tuple[str, ...] = ("p_a", "p_b")) -> Loaded:
    return Loaded(names, ("p_a", "p_b", "p_c"), (), (), {}, {}, attached, ())


def nothing_changes() -> Standing:
    """Where these programs are attached."""
    return {}


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def exists(tgid: int) -> bool:
    return Path(f"/proc/{tgid}").exists()
