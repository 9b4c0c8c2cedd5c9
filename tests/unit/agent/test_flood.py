"""Who floods a kind hides no other act of his: what lies before its record is his budget, however much he does.

That programs keep to the budget is tested in a kernel (tests/kernel/test_flood.py); that its line stays is in
test_journal_kept.py and test_selection.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from krie import Decision
from krie.agent.agent import Agent
from krie.agent.bus import Judge
from krie.events.core_maps import Limits
from krie.events.numbers import ONLY
from krie.events.wire import Json

from .setting import BATCH, Setting

RULES = """package krie.site

rules contains {"id": "KILL", "action": "kill", "scope": "process"} if {
	input.event.kind == "sample.seen"
	input.event.known
}

# METADATA
# custom: {id: FLOOD, severity: high, action: log}
rules contains {"id": "FLOOD", "action": "log"} if input.event.kind == "sample.seen"
"""
USER = 1000
BURST = 8


@pytest.fixture
def agent(setting: Setting) -> Agent:
    few = setting.config.agent.model_copy(update={"user_burst": BURST})
    setting.config = setting.config.model_copy(update={"agent": few})
    (setting.policies / "site.rego").write_text(RULES)
    return setting.start()


def allowed(setting: Setting) -> int:
    """Records of one kind by one user that a program sends at once on one CPU, by the limits that it was told."""
    limits = Limits.decode(setting.agent_maps["krie_limits"].get(ONLY))
    return limits.burst // limits.interval + limits.other_burst // limits.other_interval


def flood(setting: Setting, attempts: int) -> int:
    """As a program sends it: what is beyond the budgets is counted as held back. How many were sent."""
    sent = min(attempts, allowed(setting))
    for number in range(sent):
        setting.happens(number=number, uid=USER)
    setting.sent(attempts - sent, 0, over=attempts - sent)
    return sent


def batches_until_killed(setting: Setting, agent: Agent) -> int:
    """How many are taken until the agent has decided to kill, and no more."""
    decided: list[str] = []
    agent._bus._observers = (*agent._bus._observers, lambda _, decision: decided.append(str(decision.action)))
    for taken in range(1, 1000):
        agent._inbox.drain()
        if "kill" in decided:
            return taken
    raise AssertionError(decided)


class Together:
    """Decides several at once, as an OPA server is asked."""

    together = 100

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.decide, self.describe = judge.decide, judge.describe

    def decide_many(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Decision]:
        return [self.decide(*each) for each in events]


@pytest.mark.parametrize("before", [0, 1, BATCH - 1, BATCH, 3 * BATCH])
@pytest.mark.parametrize("together", [False, True])
def test_it_is_decided_in_the_batch_that_brings_its_record(
    setting: Setting, agent: Agent, before: int, *, together: bool
) -> None:
    if together:
        agent._bus.judge = Together(agent._bus.judge)
    setting.happens(before, uid=USER)
    setting.happens(known=True, uid=USER)
    setting.happens(5 * BATCH, uid=USER)
    assert batches_until_killed(setting, agent) == before // BATCH + 1
    left = len(setting.ring.waiting) + agent._inbox.waiting  # which keeps them while a decision is late
    assert left == (5 * BATCH + before + 1) - (before // BATCH + 1) * BATCH


@pytest.mark.parametrize("attempts", [BURST, 1000, 1_000_000])
def test_a_greater_flood_lies_no_longer_before_it(setting: Setting, agent: Agent, attempts: int) -> None:
    assert allowed(setting) == 5 * BURST
    sent = flood(setting, attempts)
    setting.happens(known=True, uid=USER)
    assert batches_until_killed(setting, agent) == sent // BATCH + 1 <= 5 * BURST // BATCH + 1
    while agent._inbox.drain():
        pass
    agent._news.tell()
    lines = setting.journal(agent)
    seen: list[dict[str, Any]] = [each for each in lines if each["kind"] == "sample.seen"]
    assert [each["decision"]["action"] for each in seen] == ["log"] * sent + ["kill"]
    held = [each["event"]["over"] for each in lines if each["kind"] == "krie.held"]
    assert held == ([attempts - sent] if attempts > sent else [])
    assert agent._losses.total == 0
