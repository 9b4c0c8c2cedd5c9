"""Each line of the journal says by itself what happened, how bad that is, and on which machine since which boot."""

import json

import pytest
from krie.cli.render_live import Live
from krie.processes.enrich import host
from krie.testing.patience import PATIENCE_S
from rich.console import Console

from .setting import Setting

RULE = """package krie.site

# METADATA
# title: A sample is seen
# custom: {id: SITE1, severity: critical, action: log, technique: T1068}
rules contains {"id": "SITE1", "action": "log"} if input.event.kind == "sample.seen"

rules contains {"id": "BARE", "action": "log"} if input.event.kind == "sample.seen"
"""


def test_lines_of_events_and_of_the_agent_itself(
    setting: Setting,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = setting.policies / "site.rego"
    site.write_text(RULE)
    agent = setting.start()
    setting.happens()
    agent._inbox.drain()
    site.write_text("no policy")
    agent._reload.begin()
    agent._reload.finish(PATIENCE_S)
    agent.finish()
    lines = setting.journal(agent)
    assert {each["kind"] for each in lines} >= {"krie.started", "sample.seen", "krie.policy", "krie.stopped"}
    assert all(each["host"] == host() for each in lines)
    assert all(host()[name] for name in ("name", "boot_id"))
    assert [each["seq"] for each in lines] == list(range(1, len(lines) + 1))
    assert all(each["since_boot_ns"] >= 0 for each in lines)
    fired = {rule["id"]: rule for each in lines for rule in each["decision"]["rules"]}
    assert fired["SITE1"] == {
        "id": "SITE1",
        "action": "log",
        "severity": "critical",
        "title": "A sample is seen",
        "technique": "T1068",
    }
    assert fired["BARE"] == {"id": "BARE", "action": "log", "severity": "", "title": "", "technique": ""}
    assert (fired["AGENT004"]["severity"], fired["AGENT004"]["technique"]) == ("medium", "")
    assert fired["AGENT004"]["title"]
    important = (setting.folder / "journal.important.jsonl").read_text().splitlines()
    assert {"SITE1", "critical"} <= {
        value for line in important for rule in json.loads(line)["decision"]["rules"] for value in rule.values()
    }
    live = Live(Console(width=200))
    for each in lines:
        live.show(each)
    shown = capsys.readouterr().out
    assert "\ncritical A sample is seen " in shown
    assert f"\nmedium   {fired['AGENT004']['title']} " in shown
