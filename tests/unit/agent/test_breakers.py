"""Breakers of rules, told, and followed by the kernel's tables."""

from pathlib import Path

import pytest
from krie.events.enforcement import Breaker

from ..enforcing import ADMIN, ONE, OTHER, Setting, all_logs, debugfs_with_kprobes  # noqa: F401 - fixtures


def test_a_rule_that_kills_too_many_only_refuses_in_the_kernel(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(debugfs, breaker_processes=1, breaker_period_s=60).started()
    for process in (ONE, OTHER):
        setting.hit(process, "REFUSES")
    setting.hit(ONE)
    assert setting.held_back == []
    setting.hit(OTHER)
    assert setting.held_back == ["KILLS"]
    assert "until krie clear --rule KILLS" in caplog.text
    (told,) = setting.told(Breaker)
    assert told == {"rule": "KILLS", "processes": 2, "period_s": 60, "state": "tripped"}
    (shown,) = setting.enforcing.status()["breakers"]
    assert shown == {"rule": "KILLS", "processes": 2, "of": 1, "tripped": True}
    assert setting.enforcing.clearing.clear(None, "REFUSES", ADMIN)["rearmed"] == []
    assert setting.enforcing.clearing.clear(ONE.tgid, None, ADMIN)["rearmed"] == []
    assert setting.enforcing.clearing.clear(None, "KILLS", ADMIN)["rearmed"] == ["KILLS"]
    assert setting.held_back == []
    assert [each["state"] for each in setting.told(Breaker)] == ["rearmed"]


def test_a_reload_arms_breakers_anew(debugfs: Path) -> None:
    setting = Setting(debugfs, breaker_processes=1).started()
    for process in (ONE, OTHER):
        setting.hit(process)
    assert setting.held_back == ["KILLS"]
    setting.change()
    assert setting.held_back == []
    assert setting.enforcing.status()["breakers"] == []


def test_tables_that_cannot_be_changed_are_an_error_and_no_end(debugfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(debugfs, breaker_processes=1).started()
    setting.kernel.full = True
    for process in (ONE, OTHER):
        setting.hit(process)
    assert [each["state"] for each in setting.told(Breaker)] == ["tripped"]
    assert caplog.text.count("the kernel's tables stay as they are, tripped breakers included") == 1
    assert setting.held_back == []
    setting.kernel.full = False
    assert setting.told(Breaker) == []  # at the next tick
    assert setting.held_back == ["KILLS"]
