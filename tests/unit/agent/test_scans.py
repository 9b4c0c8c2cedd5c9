"""What plugins find or do wrong, in an agent: an event like any."""

from collections.abc import Iterator
from typing import Any

import pytest
from krie.events.event import Event
from krie.plugin.isolation import PluginFault

from ...policy.sample import Sample
from .setting import Setting, kinds


def test_the_fault_of_a_plugin_is_told_at_the_next_tick(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    setting.fault(PluginFault("sample", "krie_scan", "OSError: gone", "Traceback", False))
    (told,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert (told.getMessage(), vars(told)["details"]) == ("plugin sample, krie_scan: OSError: gone", "Traceback")
    agent._news.tell()
    agent._news.tell()
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.plugin"]


def test_what_plugins_find_is_an_event_like_any(setting: Setting) -> None:
    agent = setting.start()
    found = Sample.without_header(number=5, free=0, flags=(), command="load", known=False, name="x", padding="")

    def scan(complete: Any) -> Iterator[Event]:
        yield complete(found)

    vars(setting.plugins)["scan"] = scan
    agent._scans.scan()
    (line,) = setting.journal(agent)[1:]
    assert (line["kind"], line["event"]["number"], line["process"]["tgid"]) == ("sample.seen", 5, 77)


def test_what_plugins_find_in_the_background_is_asked_for_at_each_tick(setting: Setting) -> None:
    agent = setting.start()
    found = Sample.without_header(number=6, free=0, flags=(), command="load", known=False, name="x", padding="")
    vars(setting.plugins)["poll"] = lambda complete: iter([complete(found)])
    agent._news.tell()
    lines = [line for line in setting.journal(agent) if line["kind"] == "sample.seen"]
    assert [line["event"]["number"] for line in lines] == [6]
