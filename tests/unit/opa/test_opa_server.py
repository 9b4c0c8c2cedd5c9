"""Decisions by an OPA server: a real one that is stopped, killed, restarted, given another bundle.

Whatever a server does, each decision comes in time and is what the embedded engine says.
"""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie.config import OpaConfig
from krie.decision import Action
from krie.opa.server import Change, OpaServer
from krie.policy.delegated import Delegated
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicySources, read_sources
from krie.testing.patience import PATIENCE_S

from ..opa_servers import Hostile, honest, running
from .delegated import OTHER, SLACK_S, Setting, event, sources


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_it_decides_as_the_embedded_engine_does(tmp_path: Path, stack: ExitStack, unix: bool) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found, unix=unix))
    setting = Setting(found, stack, url=opa.url, batch=8)
    assert setting.decided(event(1)) == "embedded"  # it was not waited for
    setting.until_opa()
    assert setting.changes() == [Change("opa", "")]
    assert setting.decided(event(1)) == "opa"
    assert setting.decided(*(event(number) for number in range(20))) == "opa"
    assert (setting.server.answered, setting.server.stood_in) == (21, 1)
    assert setting.policy.decide(*event(6)).to_json()["engine"] == "opa"
    assert "engine" not in setting.here.decide(*event(6)).to_json()


def test_what_no_rule_concerns_is_asked_nowhere(tmp_path: Path, stack: ExitStack) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "other.rego").write_text(OTHER)
    found = read_sources([folder], {})
    server = Hostile(honest(found.revision), stack)
    setting = Setting(found, stack, url=server.url)
    setting.until_opa()
    asked = len(server.requests)
    (decision,) = setting.policy.decide_many([("x.y", {"event": {"kind": "x.y"}})])
    assert (decision.engine, len(server.requests)) == ("", asked)


def test_a_mixed_batch_keeps_its_order_and_asks_once_about_the_same(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    setting.policy = Policy(
        EmbeddedEngine(found), on_error=Action.LOG, memo=100, many=Delegated(setting.server, EmbeddedEngine(found))
    )
    setting.until_opa()
    events = [event(number % 7) for number in range(50)] + [("x.y", {"event": {"kind": "x.y", "text": "5"}})]
    decisions = setting.policy.decide_many(events)
    assert [each._replace(engine="") for each in decisions] == setting.here.decide_many(events)
    assert setting.server.answered == 8
    assert setting.policy.remembered == 43
    assert setting.policy.decide_many(events) == decisions
    assert (setting.server.answered, setting.policy.remembered) == (8, 94)


def test_a_stopped_server_costs_one_wait_and_it_is_back_by_itself(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url, timeout_ms=1000)
    setting.until_opa()
    opa.signal(signal.SIGSTOP)
    started = time.monotonic()
    assert setting.decided(event(1), event(2)) == "embedded"
    assert 0.9 < time.monotonic() - started < 1 + SLACK_S
    assert setting.held  # the ring was read meanwhile
    started = time.monotonic()
    for number in range(50):
        assert setting.decided(event(number)) == "embedded"
    assert time.monotonic() - started < SLACK_S  # nobody waits again
    opa.signal(signal.SIGCONT)
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"
    first, silent, last = setting.changes()
    assert (first, silent.engine, last) == (Change("opa", ""), "embedded", Change("opa", ""))
    # Where this machine is busy, the process that asks comes too late to say so itself.
    assert silent.reason in ("it gave no answer within 1000 ms (opa.timeout_ms)", "the process that asks it hangs")


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_killed_server_that_is_started_again(tmp_path: Path, stack: ExitStack, unix: bool) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found, unix=unix))
    setting = Setting(found, stack, url=opa.url)
    setting.until_opa()
    opa.end()
    assert setting.decided(event(1)) == "embedded"
    _, change = setting.changes()
    assert change.reason.startswith("it cannot be reached: ")
    assert setting.server.to_json()["reason"] == change.reason
    opa.start()
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"
    assert setting.changes() == [Change("opa", "")]


def test_a_server_that_is_not_there_is_told_once(tmp_path: Path, stack: ExitStack) -> None:
    setting = Setting(sources(tmp_path / "rules"), stack, url="http://127.0.0.1:9")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert setting.decided(event(1)) == "embedded"
        time.sleep(0.01)
    assert setting.changes() == [Change("embedded", "it cannot be reached: Connection refused")]


def test_pauses_grow_and_are_forgotten(tmp_path: Path, stack: ExitStack) -> None:
    now = [0.0]
    server = OpaServer(OpaConfig(url="http://127.0.0.1:9"), clock=lambda: now[0])
    stack.callback(server.close)
    pauses = []
    for _ in range(9):
        due = server._due
        server._down("x")
        pauses.append(server._due - now[0])
        assert due >= 0
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    server._up, server._since, now[0] = True, 0.0, 59.0
    server._down("x")
    assert server._due - now[0] == 30
    server._up, server._since, now[0] = True, 0.0, 61.0
    server._down("x")
    assert server._due - now[0] == 0.5


def test_another_revision_is_refused_until_both_have_the_same(tmp_path: Path, stack: ExitStack) -> None:
    first, second = sources(tmp_path / "rules", 5), sources(tmp_path / "rules", 0)
    opa = stack.enter_context(running(tmp_path, first))
    setting = Setting(first, stack, url=opa.url)
    setting.until_opa()
    opa.serve(second)
    end = time.monotonic() + PATIENCE_S
    while setting.decided(event(1)) == "opa":
        assert time.monotonic() < end
    reason = f"it decides by revision {second.revision}, and revision {first.revision} is in force here"
    assert setting.changes()[-1] == Change("embedded", reason)
    setting.use(second)
    setting.until_opa()
    assert setting.decided(event(1)) == "opa"


def test_the_revision_changes_under_load(tmp_path: Path, stack: ExitStack) -> None:
    """Each answer is by the revision that is in force here, or the embedded engine's."""
    found = [sources(tmp_path / "rules", limit) for limit in (0, 100)]
    opa = stack.enter_context(running(tmp_path, found[0]))
    setting = Setting(found[0], stack, url=opa.url, batch=16)
    setting.until_opa()
    events = [event(number) for number in range(0, 200, 13)]
    end = time.monotonic() + PATIENCE_S
    for number in range(1, 13):
        opa.serve(found[number % 2])  # which it takes at some moment of what follows
        while setting.decided(*events) != ("embedded" if number % 2 else "opa"):
            assert time.monotonic() < end, setting.server.to_json()
            setting.server._pause_s, setting.server._due = 0.01, 0.0  # as a reload does


def test_without_krie_s_bundle_it_is_of_no_use(tmp_path: Path, stack: ExitStack) -> None:
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, PolicySources((), {"a": 1}, "")))
    setting = Setting(found, stack, url=opa.url)
    while not setting.server.changes:
        setting.server.look(setting.revision)
        time.sleep(0.005)
    (change,) = setting.changes()
    assert "it decides by revision " in change.reason or "it answered about other packages" in change.reason


def test_an_error_in_a_rule_is_the_embedded_engine_s_to_report(tmp_path: Path, stack: ExitStack) -> None:
    """OPA would take a wrong argument for a rule that does not fire; the agent says that it could not be evaluated."""
    found = sources(tmp_path / "rules")
    opa = stack.enter_context(running(tmp_path, found))
    setting = Setting(found, stack, url=opa.url)
    setting.until_opa()
    assert setting.decided(event(1, "no number"), event(2)) == "embedded"
    assert setting.decided(event(1)) == "opa"
    assert setting.server.declined == 1
    assert setting.changes() == [Change("opa", "")]
    for _ in range(16):
        assert setting.decided(event(1, "no number")) == "embedded"
    (change,) = setting.changes()
    assert "eval_builtin_error" in change.reason
