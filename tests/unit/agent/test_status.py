"""How a running agent stands, and what administrators may ask of it."""

import os
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, cast

import pytest
from krie.agent.bus import Bus
from krie.agent.enforcement import Enforcing
from krie.agent.health import Losses, ProbeHealth
from krie.agent.load_facts import LoadFacts
from krie.agent.missed import MissedRuns
from krie.agent.status import Status
from krie.kernel.features import Features
from krie.loader.origin import Origin
from krie.plugin.manager import Plugins
from krie.processes.peer import Peer
from krie.timings import Phase, Spent, Timings

from .reported import probe

ADMIN = Peer(1234, 0)
TIMINGS = [Phase("agent", "policy", Spent(3, 2, 1)).to_json()]


class Setting:
    def __init__(self) -> None:
        self.now = 100.0
        self.bus = SimpleNamespace(judged=0, left_out=2)
        self.tokens: list[str] = []
        self.cleared: list[tuple[int | None, str | None, Peer]] = []
        timings = cast("Timings", SimpleNamespace(to_json=lambda: TIMINGS))
        self.status = Status(
            LoadFacts(cast("Features", None), Origin.CACHE, "", timings),
            cast("Plugins", SimpleNamespace(degraded={"sample": "why"})),
            cast("ProbeHealth", SimpleNamespace(reports=[probe("a", "alive"), probe("b", "missing")])),
            cast("Bus", self.bus),
            cast("Losses", SimpleNamespace(total=3)),
            cast("MissedRuns", SimpleNamespace(total=4)),
            cast(
                "Enforcing",
                SimpleNamespace(clearing=SimpleNamespace(clear=self._clear), status=lambda: {"guard": True}),
            ),
            lambda: {"policy": "revision", "remembered": 5, "policy_failures": 2, "evaluator": 7},
            lambda: True,
            lambda: {"healthy": True},
            lambda: 9,
            lambda: self.now,
        )

    def _clear(self, tgid: int | None, rule: str | None, by: Peer, token: str) -> dict[str, Any]:
        self.tokens.append(token)
        self.cleared.append((tgid, rule, by))
        return {"poisoned": 1}

    def run(self, seconds: int, events_per_s: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.bus.judged += events_per_s
            self.status.note()

    def answer(self, **request: object) -> dict[str, Any]:
        return self.status.answer(request, ADMIN)


def test_all_that_is_known() -> None:
    setting = Setting()
    setting.run(3, 2)
    assert setting.answer(ask="status") == {
        "tgid": os.getpid(),
        "version": version("krie"),
        "programs": "cache",
        "up_s": 3,
        "policy": "revision",
        "events": 6,
        "events_per_s": 2.0,
        "backlog": True,
        "important_left_out": 2,
        "lost": 3,
        "missed": 4,
        "evicted": 9,
        "remembered": 5,
        "policy_failures": 2,
        "evaluator": 7,
        "probes": [
            {"name": "sample.a", "state": "alive", "by": "lsm"},
            {"name": "sample.b", "state": "missing", "by": None},
        ],
        "degraded": {"sample": "why"},
        "timings": TIMINGS,
        "guard": True,
    }


def test_the_doctor_is_asked() -> None:
    assert Setting().answer(ask="doctor") == {"healthy": True}


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    setting = Setting()
    setting.run(3600, 1)
    setting.run(30, 50)
    assert setting.status.to_json()["events_per_s"] == 50.0
    setting.run(60, 0)
    assert setting.status.to_json()["events_per_s"] == 0.0


def test_what_is_remembered_for_the_rate_does_not_grow() -> None:
    setting = Setting()
    setting.run(1000, 1)
    assert len(setting.status._seen) <= 12


def test_the_rate_of_a_start_counts_a_second_at_least() -> None:
    setting = Setting()
    setting.now += 0.001
    setting.bus.judged = 7
    assert setting.status.to_json()["events_per_s"] == 7.0


@pytest.mark.parametrize(
    ("request_", "cleared"),
    [
        ({"ask": "clear", "tgid": 42}, (42, None, ADMIN)),
        ({"ask": "clear", "rule": "R1"}, (None, "R1", ADMIN)),
        ({"ask": "clear", "all": True}, (None, None, ADMIN)),
    ],
)
def test_what_can_be_cleared(request_: dict[str, object], cleared: tuple[int | None, str | None, Peer]) -> None:
    setting = Setting()
    assert setting.answer(**request_) == {"poisoned": 1}
    assert setting.cleared == [cleared]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"ask": "clear"},
        {"ask": "clear", "all": False},
        {"ask": "clear", "all": "yes"},
        {"ask": "clear", "tgid": "42"},
        {"ask": "clear", "rule": None},
        {"ask": ["status"]},
    ],
)
def test_what_makes_no_sense_clears_nothing(request_: dict[str, object]) -> None:
    setting = Setting()
    with pytest.raises(ValueError, match="ask for status, for doctor, or for clear"):
        setting.answer(**request_)
    assert setting.cleared == []
