"""Decisions and status for a console, as any OPA tells them."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from krie.agent.agent import Agent
from krie.config import Config
from krie.errors import PolicyError
from krie.events.wire import Json
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.processes.enrich import host
from krie.services.decisions import Decisions, Drops
from krie.services.http import Answer, ServiceError
from krie.services.mask import Mask, masked, masks
from krie.services.spool import Spool
from krie.services.standing import Standing
from krie.services.upload import Upload
from krie.services_config import DecisionLogsConfig
from krie.testing.patience import PATIENCE_S

from ..agent.setting import Setting
from ..web import Request, Server, reply, serving
from .bundle_site import RULE, told, until, wait

MASK = """package system.log

mask contains "/input/process/comm"
mask contains {"op": "upsert", "path": "/input/process/exe", "value": name} if name := data.hidden
mask contains "/result/rules/0" if input.path == "nowhere"
drop if input.input.event.name == "secret"
"""


class Console:
    """A decision log and status service."""

    def __init__(self) -> None:
        self.status = 200

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        reply(handler, self.status)


@contextmanager
def logging_agent(folder: Path, url: str, **sections: object) -> Iterator[tuple[Setting, Agent]]:
    folder.mkdir(exist_ok=True)
    setting = Setting(folder)
    token = folder / "token"
    token.write_text("t0ken")
    token.chmod(0o600)
    content = setting.config.model_dump()
    content["decision_logs"] = {"url": url, "token": str(token), "min_delay_s": 1, "max_delay_s": 1}
    setting.config = Config.model_validate({**content, **sections})
    with setting.stack:
        yield setting, setting.start()


def sent(server: Server, path: str = "/logs") -> list[dict[str, Any]]:
    requests = [each for each in list(server.requests) if each.path == path]
    assert all(each.headers["content-encoding"] == "gzip" for each in requests)
    return [event for each in requests for event in json.loads(gzip.decompress(each.body))]


def sent_bytes(server: Server) -> bytes:
    return b"".join(gzip.decompress(each.body) for each in list(server.requests) if each.path == "/logs")


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


def test_status_in_opa_s_shape(tmp_path: Path) -> None:
    console = Console()
    with serving(console.answer) as server:
        more = {"status": {"url": server.url}}
        with logging_agent(tmp_path, server.url, **more) as (setting, agent):

            def reports() -> list[dict[str, Any]]:
                return [json.loads(each.body) for each in list(server.requests) if each.path == "/status"]

            revision = agent._in_force.policy.revision
            until(agent, lambda: any(each["bundles"]["krie"]["active_revision"] == revision for each in reports()))
            setting.rule("R2")
            agent._reload.begin()
            agent._reload.finish(PATIENCE_S)
            assert agent._in_force.policy.revision != revision
            until(agent, lambda: reports()[-1]["bundles"]["krie"]["active_revision"] == agent._in_force.policy.revision)
            report = reports()[-1]
    assert report["labels"]["app"] == "krie"
    assert report["plugins"] == {"decision_logs": {"state": "OK"}, "status": {"state": "OK"}}
    assert report["bundles"]["krie"]["name"] == "krie"
    assert report["bundles"]["krie"]["last_successful_activation"] > "2026"
    assert report["bundles"]["krie"]["last_successful_download"] == "0001-01-01T00:00:00Z"
    assert report["decision_logs"]["metrics"]["counter_decision_logs_dropped"] == 0


def test_trouble_in_status() -> None:
    standing = Standing({}, ("bundle", "decision_logs"), lambda: 1.5)
    standing.asked(7)
    standing.in_force("r1")
    standing.trouble("bundle", "answers 404", 404)
    standing.trouble("decision_logs", "is full")
    standing.count(sent=3, dropped=2)
    report: Any = standing.to_json()
    assert report["bundles"]["krie"] == {
        "name": "krie",
        "active_revision": "r1",
        "last_successful_activation": "1970-01-01T00:00:01.500000Z",
        "last_successful_download": "1970-01-01T00:00:01.500000Z",
        "last_successful_request": "1970-01-01T00:00:01.500000Z",
        "last_request": "1970-01-01T00:00:01.500000Z",
        "type": "snapshot",
        "size": 7,
        "code": "bundle_error",
        "message": "answers 404",
        "http_code": "404",
    }
    assert report["decision_logs"]["code"] == "decision_log_error"
    assert report["decision_logs"]["metrics"]["counter_decision_logs_uploaded"] == 3
    assert report["plugins"]["bundle"] == {"state": "ERROR", "message": "answers 404"}
    standing.trouble("bundle", "")
    assert "code" not in standing.to_json()["bundles"]["krie"]  # type: ignore[index,call-overload,operator]


ZEROS = ("00", "+0", "-0", "0" * 5000)
"""As Go reads them, so that OPA finds the first element."""
EVENT: dict[str, Any] = {"input": {"a": {"b": [1, 2, {"c": 3}]}, "x/y": 4}, "result": {"rules": [{"id": "R"}]}}


@pytest.mark.parametrize(
    ("rule", "after", "noted"),
    [
        ("/input/a/b/2/c", {"input": {"a": {"b": [1, 2, {}]}, "x/y": 4}}, "erased"),
        ("/input/a/b/0", {"input": {"a": {"b": [2, {"c": 3}]}, "x/y": 4}}, "erased"),
        ("/input", {}, "erased"),
        ({"op": "remove", "path": "/result/rules/0/id"}, {"result": {"rules": [{}]}}, "erased"),
        (
            {"op": "upsert", "path": "/input/a/b/1", "value": "*"},
            {"input": {"a": {"b": [1, "*", {"c": 3}]}, "x/y": 4}},
            "masked",
        ),
        ({"op": "upsert", "path": "/result", "value": None}, {"result": None}, "masked"),
        (
            {"op": "upsert", "path": "/result/new/deep", "value": 1},
            {"result": {"rules": [{"id": "R"}], "new": {"deep": 1}}},
            "masked",
        ),
        ("/input/nowhere/x", {"input": EVENT["input"]}, ""),
        ("/input/a/b/9", {"input": EVENT["input"]}, ""),
        ("/input/a/b/-1", {"input": EVENT["input"]}, ""),
        *((f"/input/a/b/{each}", {"input": {"a": {"b": [2, {"c": 3}]}, "x/y": 4}}, "erased") for each in ZEROS),
        ("/input/a/b/002/c", {"input": {"a": {"b": [1, 2, {}]}, "x/y": 4}}, "erased"),
        ({"op": "upsert", "path": "/input/a/b/9", "value": 1}, {"input": EVENT["input"]}, ""),
        ({"op": "upsert", "path": "/input/a/b/0/z", "value": 1}, {"input": EVENT["input"]}, ""),
    ],
)  # fmt: skip
def test_masks(rule: Json, after: dict[str, Any], noted: str) -> None:
    before = json.dumps(EVENT)
    found = masked(EVENT, [rule])
    assert json.dumps(EVENT) == before
    assert {key: found.get(key) for key in after} == after
    assert ("input" in found) == (rule != "/input")
    path = rule if isinstance(rule, str) else rule["path"]  # type: ignore[index,call-overload]
    assert found.get("erased", []) + found.get("masked", []) == ([path] if noted else [])


@pytest.mark.parametrize(
    "rules",
    [
        {},
        ["input"],
        ["/labels"],
        [""],
        [7],
        [{"op": "x", "path": "/input"}],
        [{"path": "/input"}],
        [{"op": "remove"}],
        ["/input/%"],
        ["/input/a%zz"],
    ],
)
def test_a_mask_that_makes_no_sense_is_an_error(rules: Json) -> None:
    with pytest.raises(PolicyError, match=r"data\.system\.log\.mask"):
        masked(EVENT, rules)


def test_masks_in_data_are_refused() -> None:
    """OPA masks by them, too: they would be in force there, and not here."""
    data: dict[str, Json] = {"system": {"log": {"mask": ["/input/process/exe"]}}}
    with pytest.raises(
        PolicyError, match=r"site/m\.json: data\.system is what OPA reads for itself.* package system\.log"
    ):
        EmbeddedEngine(PolicySources((PolicyFile("a", RULE % "A"),), data, "r", {"system": "site/m.json"}))


def test_whether_a_policy_masks() -> None:
    assert masks([PolicyFile("a", "# x\npackage system.log\n")])
    assert not masks([PolicyFile("a", RULE % "A")])
    made = Mask([("a", "package system.log\n\nmask contains input.input.x")], {})
    assert made.applied({"input": {"x": "/input/x"}}) == {"input": {}, "erased": ["/input/x"]}
    assert made.applied({"input": {}}) == {"input": {}}
    with pytest.raises(PolicyError):
        Mask([("a", "package system.log\n\nmask contains")], {})


def spool(folder: Path, drops: Drops, most: int = 1 << 20, batch: int = 1 << 16) -> Spool:
    return Spool(folder / "spool", most, batch, drops.put)


def line(number: int, size: int = 10) -> bytes:
    import random

    return json.dumps({"n": number, "x": random.Random(number).randbytes(size).hex()}).encode()


def batches(made: Spool) -> Iterator[list[int]]:
    while (batch := made.oldest()) is not None:
        numbers = [each["n"] for each in json.loads(gzip.decompress(batch.path.read_bytes()))]
        assert batch.count == len(numbers)
        yield numbers
        made.remove(batch)


def test_what_waits_is_kept_in_order_over_a_restart(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops)
    for number in range(5):
        made.add(line(number))
    assert next(batches(made)) == [0, 1, 2, 3, 4]  # which is not sent, so that it stays
    made.add(line(5))
    with (tmp_path / "spool/open.jsonl").open("ab") as file:
        file.write(b'{"torn')
    again = spool(tmp_path, drops)
    again.add(line(6))
    assert list(batches(again)) == [[0, 1, 2, 3, 4], [5, 6]]
    assert drops.take() == (1, f"they were not written to the end in {tmp_path}/spool/open.jsonl")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # spools have files open there as long as they live


def test_a_full_disk_is_told_once_and_tears_no_line(small_disk: Path) -> None:
    drops = Drops()
    made = Spool(small_disk / "spool", 1 << 20, 1 << 16, drops.put)
    made.add(line(0))
    rest = small_disk / "rest"
    with contextlib.suppress(OSError), rest.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    for number in range(1, 9):
        made.add(line(number, 600))
    count, why = drops.take()
    assert (count, "No space" in why) == (0, True)
    rest.unlink()
    made.add(line(9))
    assert drops.take() == (0, "")
    with (small_disk / "spool/open.jsonl").open("ab") as file:  # as after a loss of power
        file.write(bytes(100) + b"\n")
    again = Spool(small_disk / "spool", 1 << 20, 1 << 16, drops.put)
    ((first, *others),) = batches(again)
    assert (first, others[-1]) == (0, 9)
    assert drops.take()[0] == 1


@pytest.mark.parametrize(("most", "batch"), [(1 << 20, 1 << 24), (1 << 20, 1 << 16)])
def test_all_that_waits_is_within_the_limit(most: int, batch: int, tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, most, batch)
    for number in range(1500):
        made.add(line(number, 1000))
        if number % 100 == 0:
            assert sum(each.stat().st_size for each in (tmp_path / "spool").iterdir()) <= most
    kept = [number for each in batches(made) for number in each]
    assert kept == list(range(1500 - len(kept), 1500))
    assert drops.take()[0] == 1500 - len(kept) > 0


def test_a_batch_is_no_larger_than_one_may_be(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, batch=4096)
    for number in range(60):
        made.add(line(number, 500))
    made.add(line(60, 50_000))
    found = []
    while (batch := made.oldest()) is not None:
        assert batch.path.stat().st_size <= 4096
        found += [each["n"] for each in json.loads(gzip.decompress(batch.path.read_bytes()))]
        made.remove(batch)
    assert found == list(range(60))
    assert drops.take() == (1, "it has more than 4096 bytes, compressed")


def test_beyond_the_limit_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    drops = Drops()
    made = spool(tmp_path, drops, most=20_000, batch=4096)
    for number in range(200):
        made.add(line(number, 500))
    found = [number for batch in batches(made) for number in batch]
    count, why = drops.take()
    assert found == list(range(count, 200))
    assert count > 100
    assert "the oldest were dropped" in why
    assert drops.take() == (0, "")


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
