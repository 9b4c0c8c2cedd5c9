"""Decisions for a console, as any OPA tells them; what masks and couriers do to them."""

import os
import signal
from pathlib import Path

from krie.agent.agent import Agent
from krie.processes.enrich import host
from krie.testing.patience import PATIENCE_S

from ..agent.setting import Setting
from ..web import serving
from .bundle_site import told, until, wait
from .console import MASK, Console, logging_agent, sent, sent_bytes


def test_decisions_arrive_masked_as_opa_tells_them(tmp_path: Path) -> None:
    console = Console()
    with serving(console.answer) as server, logging_agent(tmp_path, server.url) as (setting, agent):
        (setting.policies / "mask.rego").write_text(MASK)
        (setting.policies / "hidden.json").write_text('{"hidden": "somewhere"}')
        agent._reload.begin()
        agent._reload.finish(PATIENCE_S)
        setting.happens(name="kernel/x")
        setting.happens(name="secret")
        until(agent, lambda: any(each["input"]["event"].get("name") == "kernel/x" for each in sent(server)))
        events = sent(server)
    (event,) = [each for each in events if each["custom"]["kind"] == "sample.seen"]  # the other one was dropped
    assert event["labels"].keys() == {"app", "id", "host", "version"}
    assert event["labels"]["app"] == "krie"
    assert len(event["decision_id"]) == 36
    assert event["path"] == "krie/decision/result"
    assert event["bundles"]["krie"]["revision"] == agent._in_force.policy.revision
    assert event["result"]["action"] == "log"
    assert event["result"]["rules"] == [{"id": "R1", "action": "log"}]
    assert event["input"]["host"] == host()  # name, machine and boot: decisions of many hosts can be told apart
    assert event["input"]["process"]["exe"] == "somewhere"
    assert "comm" not in event["input"]["process"]
    assert event["erased"] == ["/input/process/comm"]
    assert event["masked"] == ["/input/process/exe"]
    assert event["timestamp"].endswith("Z")
    request = next(each for each in server.requests if each.path == "/logs")
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert request.headers["authorization"] == "Bearer t0ken"
    line = next(each for each in setting.journal(agent) if each["kind"] == "sample.seen")
    assert line["time"] == event["timestamp"]
    assert line["event"]["name"] == "kernel/x"  # the journal has it all


def test_what_is_not_taken_waits_on_disk_for_the_next_agent(tmp_path: Path) -> None:
    console = Console()
    console.status = 503
    with serving(console.answer) as server:
        with logging_agent(tmp_path / "one", server.url) as (setting, agent):
            setting.happens(name="kernel/x")
            until(agent, lambda: "decision_logs" in agent._desk.troubles)
            agent._health.update()
            assert agent._bus.health["services"] == ["decision_logs"]
            assert "answers 503" in str(agent._status.to_json()["services"])
            state = setting.config.agent.state_dir
            (trouble,) = told(setting, agent, "krie.service")
            assert (trouble["service"], trouble["state"]) == ("decision_logs", "trouble")
        server.requests.clear()
        console.status = 204
        with logging_agent(
            tmp_path / "two", server.url, agent={**setting.config.agent.model_dump(), "run_dir": str(tmp_path / "run")}
        ) as (_, agent):
            until(agent, lambda: any(each["input"]["event"].get("name") == "kernel/x" for each in sent(server)))
            wait(lambda: not list((Path(state) / "decision_logs").glob("*.gz")))


def test_a_mask_without_end_ends_the_courier_and_not_the_agent(tmp_path: Path) -> None:
    decision_only = "count([1 | some a in numbers.range(1, input.n); some b in numbers.range(1, 9999); a == b]) < 0"
    always = "count([1 | some a in numbers.range(1, 99999); some b in numbers.range(1, 99999); a == b]) < 0"
    for number, rule in enumerate((decision_only.replace("input.n", "9999 * count(input.path)"), always)):
        endless = f'package system.log\n\nmask contains "/input/x" if {rule}\n'
        folder = tmp_path / str(number)
        policy = {"decision_ms": 100, "paths": (str(folder / "policies"),)}
        with (
            serving(Console().answer) as server,
            logging_agent(folder, server.url, policy=policy) as (setting, agent),
        ):
            (setting.policies / "mask.rego").write_text(endless)
            load(agent)
            setting.happens(name="kernel/x")
            until(agent, lambda: "courier" in agent._desk.troubles)
            assert "SIGALRM" in agent._desk.troubles["courier"]
            # The next one does not try it again, and so lives to hear of another policy.
            until(agent, lambda: "courier" not in agent._desk.troubles)
            setting.happens(name="kernel/y")
            until(agent, lambda: "a mask took longer than policy.decision_ms" in journaled(setting))
            (setting.policies / "mask.rego").unlink()
            load(agent)
            setting.happens(name="kernel/z")
            until(agent, lambda: b"kernel/z" in sent_bytes(server))


def journaled(setting: Setting) -> str:
    """All that the agent has journaled so far."""
    return Path(setting.config.journal.path).read_text()


def load(agent: Agent) -> None:
    agent._reload.begin()
    agent._reload.finish(PATIENCE_S)


def courier(agent: Agent) -> int:
    until(agent, lambda: agent._desk._courier is not None)
    assert agent._desk._courier is not None
    return agent._desk._courier.tgid


def test_decisions_without_a_courier_are_masked_by_the_policy_that_made_them(tmp_path: Path) -> None:
    masking = 'package system.log\n\nmask contains "/input/event/name"\n'
    policy = {"paths": (str(tmp_path / "policies"),)}
    with (
        serving(Console().answer) as server,
        logging_agent(tmp_path, server.url, policy=policy) as (setting, agent),
    ):
        mask = setting.policies / "mask.rego"
        mask.write_text(masking)
        load(agent)
        os.kill(courier(agent), signal.SIGKILL)
        until(agent, lambda: agent._desk._courier is None)
        setting.happens(name="secret/1")
        until(agent, lambda: "secret/1" in journaled(setting))
        mask.unlink()
        load(agent)
        setting.happens(name="open/2")
        until(agent, lambda: b"open/2" in sent_bytes(server))
        seen = [each["input"]["event"] for each in sent(server) if each["custom"]["kind"] == "sample.seen"]
        assert [each.get("name") for each in seen] == [None, "open/2"]
        assert b"secret/1" not in sent_bytes(server)


def test_what_a_courier_takes_along_is_counted(tmp_path: Path) -> None:
    with serving(Console().answer) as server, logging_agent(tmp_path, server.url) as (setting, agent):
        os.kill(courier(agent), signal.SIGSTOP)
        for number in range(50):
            setting.happens(name=f"kernel/{number}")
        until(agent, lambda: agent._desk._outbox is not None and agent._desk._outbox.accepted >= 50)
        os.kill(courier(agent), signal.SIGKILL)
        until(agent, lambda: '"state":"dropped"' in journaled(setting))
        assert sum(each["count"] for each in told(setting, agent, "krie.service")) >= 50
