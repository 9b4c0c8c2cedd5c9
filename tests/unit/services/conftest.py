"""What tests of OPA's services share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..agent.setting import all_logs, signals_as_before  # noqa: F401 - fixtures
from ..web import serving
from .bundle_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    with serving(made.shelf.answer) as server:
        made.url = server.url
        yield made
