"""The example in a guest, by the way that its kernel offers: what its rule refuses is refused."""

import shutil
from pathlib import Path

import pytest

from ..environment import PIP, ROOT, Environment

pytestmark = [pytest.mark.slow, pytest.mark.needs("guest", "fmod_ret")]


def test_the_examples_rule_is_enforced(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    ignored = shutil.ignore_patterns("build", "*.egg-info")
    shutil.copytree(ROOT / "examples/krie-clock", environment.work / "example", ignore=ignored)
    assert "1 passed" in environment.run(f"cd example; {PIP} .; python -m pytest -q tests/test_enforced.py")
