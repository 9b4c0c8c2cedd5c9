"""Every test here attaches to a kernel: this machine's, or a guest's."""

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
