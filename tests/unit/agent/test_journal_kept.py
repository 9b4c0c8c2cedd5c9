"""Who fills the journal until it turns over again and again pushes no line out of the file that is kept longer."""

import json
from pathlib import Path

import pytest
from krie.agent.agent import Agent
from krie.agent.journal import important_path
from krie.testing.patience import wait_for

from .setting import Setting

RULES = """package krie.site

# METADATA
# custom: {id: LAST, severity: %s, action: %s}
rules contains {"id": "LAST", "action": "%s"} if {
	input.event.kind == "sample.seen"
	input.event.known
}

# METADATA
# custom: {id: FLOOD, severity: high, action: log}
rules contains {"id": "FLOOD", "action": "log"} if {
	input.event.kind == "sample.seen"
	not input.event.known
}
"""
TURNOVERS = 5
SMALLEST = 1 << 20
"""Bytes: a journal's file is not limited to less."""
USER = 1000


def lines(of: Path) -> list[dict[str, object]]:
    """All that is there, the rotated files included."""
    found = of.parent.glob(f"{of.name}*")
    return [json.loads(line) for each in found for line in each.read_bytes().splitlines() if line.endswith(b"}")]


def acts(of: Path) -> int:
    return sum("LAST" in json.dumps(each["decision"]) for each in lines(of))


def flood(setting: Setting, agent: Agent) -> int:
    """As much as the journal's files hold, by the same user, with a rule that is severe too; returns how many lines."""
    (everything, *_), count = agent._writers.everything, 0
    before = everything.written
    while (everything.written - before) * 800 < 2 * SMALLEST:
        setting.happens(1000, uid=USER, number=count)
        count += 1000
        while agent._inbox.drain():
            pass
        wait_for(lambda: not everything._lines)
    return count


@pytest.mark.parametrize(("severity", "action"), [("critical", "log"), ("low", "kill")])
def test_its_line_is_there_after_many_turnovers_of_the_journal(setting: Setting, severity: str, action: str) -> None:
    smallest = setting.config.journal.model_copy(update={"max_mib": 1, "keep": 1})
    setting.config = setting.config.model_copy(update={"journal": smallest})
    (setting.policies / "site.rego").write_text(RULES % (severity, action, action))
    journal = setting.folder / "journal.jsonl"
    agent = setting.start()
    setting.happens(200, uid=USER)  # more than is kept of these
    setting.happens(known=True, uid=USER)
    while agent._inbox.drain():
        pass
    wait_for(lambda: acts(journal) == acts(important_path(journal)) == 1)
    sent = sum(flood(setting, agent) for _ in range(TURNOVERS))
    setting.journal(agent)
    kept = lines(journal)
    assert acts(journal) == 0
    assert len(kept) * TURNOVERS / 2 < sent
    assert acts(important_path(journal)) == 1
    assert len(lines(important_path(journal))) < 200  # of the flood, the first and then a few a minute
    assert agent._selection.left_out > sent - 200
    assert agent._writers.everything[0].overflowed == 0
