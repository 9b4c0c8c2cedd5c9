"""Every test here attaches to a kernel: this machine's, or a guest's."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session")
def agent_options() -> Mapping[str, Any]:
    return {"plugins": {"runtime_integrity": {"required": True}}}


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of attacker.c, which becomes root through the test module."""
    program = tmp_path_factory.mktemp("attacker") / "attacker"
    subprocess.run(["gcc", "-O1", "-o", program, Path(__file__).with_name("attacker.c")], check=True)
    return program
