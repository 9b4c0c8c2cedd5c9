"""What a service answers to decisions, and decisions that cannot be masked."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from krie.services.decisions import Decisions, Drops
from krie.services.http import Answer, ServiceError
from krie.services.upload import Upload
from krie.services_config import DecisionLogsConfig
from krie.testing.patience import PATIENCE_S

from ..web import Request
from .console import line, spool


@pytest.mark.parametrize(
    ("status", "kept", "dropped"),
    [(200, 0, 0), (204, 0, 0), (413, 0, 2), (429, 1, 0), (500, 1, 0), (401, 1, 0), (302, 1, 0)],
)
def test_what_the_service_says(status: int, kept: int, dropped: int, tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops)
    made.add(line(1))
    made.add(line(2))
    asked: list[Request] = []

    def ask(service: Any, method: str, *, headers: dict[str, str], body: bytes, **_: object) -> Answer:
        asked.append(Request(method, service.url, headers, body))
        return Answer(status)

    upload = Upload(DecisionLogsConfig(url="https://console/base/"), made, drops.put, ask=ask, draw=lambda: 0.5)
    for _ in range(3):
        try:
            upload.step()
        except ServiceError as error:
            assert error.status == status
    assert asked[0].path == "https://console/base/logs"
    assert len(asked) == (3 if kept else 1)
    assert len(list((tmp_path / "spool").glob("*.gz"))) == kept
    assert drops.take()[0] == dropped
    assert upload.delay_s == (3.0 if kept else 32.5)  # 4 s, less a quarter; or between 5 and 60


def test_what_cannot_be_masked_is_dropped(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops)
    decisions = Decisions(made, {"app": "krie"}, drops.put, PATIENCE_S)

    def policy(text: str) -> Callable[[], None]:
        return lambda: decisions.policy({"mask": {"files": [["m.rego", f"package system.log\n\n{text}"]], "data": {}}})

    for mask in (
        'mask contains "input"',
        "mask := 7",
        "mask contains",
        "mask contains x if x := 1 / input.input.zero",
        "mask contains input.input.secret",
        'mask contains {"op": input.input.secret, "path": "/input"}',
        "mask contains [input.input.secret]",
        "mask contains x if x := time.parse_duration_ns(input.input.secret)",
        "drop if time.parse_duration_ns(input.input.secret) > 0",
    ):
        policy(mask)()
        decisions.take({"input": {"zero": 0, "secret": "pass\nword"}})
        count, why = drops.take()
        assert (count, "cannot be masked" in why) == (1, True), mask
        assert "word" not in why
    assert made.oldest() is None
    decisions.policy({"mask": None})
    decisions.take({"input": {}})
    batch = made.oldest()
    assert batch is not None
    assert batch.count == 1


def test_an_error_quotes_nothing_that_a_mask_hides(tmp_path: Path) -> None:
    made = spool(tmp_path, Drops())
    decisions = Decisions(made, {}, Drops().put, PATIENCE_S)
    event = {"input": {"event": {"new": "passw0rd"}}, "custom": {"kind": "k", "error": 'bad number: "passw0rd"'}}
    told = []
    for text in (None, 'mask contains "/input/event/new"', 'drop if input.path == "nowhere"'):
        mask = None if text is None else {"files": [["m.rego", f"package system.log\n\n{text}"]], "data": {}}
        decisions.policy({"mask": mask})
        decisions.take(event)
        batch = made.oldest()
        assert batch is not None
        told += json.loads(gzip.decompress(batch.path.read_bytes()))
        made.remove(batch)
    unmasked, masked_one, with_drop = told
    assert unmasked["custom"]["error"] == 'bad number: "passw0rd"'
    assert "passw0rd" not in json.dumps(masked_one)
    assert masked_one["custom"] == {"kind": "k", "error": with_drop["custom"]["error"]}
    assert "could not be evaluated" in with_drop["custom"]["error"]
