"""An agent goes on while a policy gives no answer, to an event or to the compiler."""

import os
import signal
import time

from krie.agent.agent import Agent
from krie.testing.patience import PATIENCE_S

from .setting import BATCH, Setting, kinds

BLOCKS = """package krie.blocks

rules contains {"id": "BLOCKS", "action": "kill"} if {
	input.event.kind == "sample.seen"
	input.process.uid == 5
	count([1 | some i in numbers.range(1, 50000); some j in numbers.range(1, 50000); i == j + 50000]) == 5
}
"""


def blocking(setting: Setting, **limits: int) -> Agent:
    """An agent with a policy that never answers about user 5."""
    (setting.policies / "blocks.rego").write_text(BLOCKS)
    policy = setting.config.policy.model_copy(update=limits)
    setting.config = setting.config.model_copy(update={"policy": policy})
    return setting.start()


def test_records_are_taken_out_of_the_ring_while_a_policy_blocks(setting: Setting) -> None:
    agent = blocking(setting, decision_ms=1000)
    setting.happens(uid=5)
    left: list[int] = []

    def on_read() -> None:
        left.append(len(setting.ring.waiting))
        if len(left) == 2:  # while it blocks
            setting.happens(3 * BATCH, uid=1)

    setting.ring.on_read = on_read
    assert agent._inbox.drain()
    assert not setting.ring.waiting
    assert agent._inbox.waiting == 3 * BATCH
    assert agent._inbox.backlog
    while agent._inbox.drain():
        pass
    agent._news.tell()
    lines = setting.journal(agent)[1:]
    assert kinds(lines[:-1]) == ["sample.seen"] * (1 + 3 * BATCH)
    first = lines[0]["decision"]
    assert [each["id"] for each in first["rules"]] == ["R1", "policy.on_error"]
    assert "krie.blocks: gave no answer within 1000 ms" in first["error"]
    assert all([each["id"] for each in line["decision"]["rules"]] == ["R1"] for line in lines[1:-1])
    assert (lines[-1]["kind"], lines[-1]["event"]["state"]) == ("krie.policy", "failed")
    assert "krie.blocks" in lines[-1]["event"]["reason"]
    assert agent._bus.health["policy_failures"] == agent._status.to_json()["policy_failures"] == 1


def test_a_signal_ends_the_agent_while_a_policy_blocks(setting: Setting) -> None:
    agent = blocking(setting, decision_ms=1000)
    setting.happens(3, uid=5)
    seen: list[float] = []

    def on_read() -> None:
        if not seen and setting.ring.reads > 1:  # within the first event
            seen.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    setting.ring.on_read = on_read
    assert agent.run(120) == "SIGTERM"
    agent.finish()
    assert time.monotonic() - seen[0] < 60
    assert kinds(setting.journal(agent))[-1] == "krie.stopped"


def test_the_agent_goes_on_while_a_policy_is_compiled(setting: Setting) -> None:
    agent = setting.start()
    setting.happens()
    (setting.policies / "blocks.rego").write_text(BLOCKS.replace("== 5\n\tcount", ">= 0\n\tcount"))
    vars(agent._policy_files)["_config"] = setting.config.model_copy(
        update={"policy": setting.config.policy.model_copy(update={"load_s": 2})}
    )
    agent._reload.look_for_changes()
    agent._reload.finish()
    assert agent._policy_files.loading
    agent._inbox.drain()
    agent._reload.finish(PATIENCE_S)
    seen, refused = setting.journal(agent)[1:]
    assert [each["id"] for each in seen["decision"]["rules"]] == ["R1"]
    assert refused["event"]["state"] == "refused"
    assert "within 2 s" in refused["event"]["reason"]
