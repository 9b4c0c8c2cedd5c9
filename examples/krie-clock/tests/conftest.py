"""KRIe's fixtures, with an agent that has this plugin."""

from collections.abc import Mapping
from typing import Any

import pytest

pytest_plugins = ("krie.testing.fixtures",)


@pytest.fixture(scope="session")
def agent_options() -> Mapping[str, Any]:
    return {"plugins": {"clock": {"required": True}}}
