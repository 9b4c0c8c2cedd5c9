"""One agent with everything but the kernel: what it does from its start to its end, and in which order."""

import errno
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from krie.agent.admin import ask
from krie.agent.presence import Presence
from krie.processes.peer import Peer
from krie.testing.patience import PATIENCE_S

from .setting import BATCH, RULE, Setting, kinds, probe


def test_a_start_an_event_and_an_end(setting: Setting) -> None:
    agent = setting.start()
    assert setting.sends
    setting.happens(name="kernel/x")
    assert agent.run(0) == "0 s elapsed"
    agent.finish()
    assert not setting.sends
    lines = setting.journal(agent)
    assert kinds(lines) == ["krie.started", "sample.seen", "krie.stopped"]
    assert [each["id"] for each in lines[1]["decision"]["rules"]] == ["R1"]
    assert lines[2]["event"]["reason"] == "0 s elapsed"
    assert [line["seq"] for line in lines] == [1, 2, 3]


def test_only_one_agent_runs(setting: Setting, tmp_path: Path) -> None:
    setting.start()
    (tmp_path / "other").mkdir()
    other = Setting(tmp_path / "other")
    other.config = setting.config
    with pytest.raises(Exception, match=str(os.getpid())), other.stack:
        other.start()
    other.ring.close()


def test_what_went_before_a_failed_start_is_undone(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    (setting.policies / "broken.rego").write_text("package")
    with pytest.raises(Exception, match=r"broken\.rego"), setting.stack:
        setting.start()
    assert setting.detached
    (setting.policies / "broken.rego").unlink()
    with setting.stack:
        setting.start()  # nobody holds the lock


def test_work_that_fails_is_told_and_the_agent_goes_on(setting: Setting) -> None:
    agent = setting.start()

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    setting.ring.on_read = refuse
    agent.run(0)
    setting.ring.on_read = list
    agent._upkeep.beat()
    (told,) = [each for each in setting.journal(agent) if each["kind"] == "krie.trouble"]
    assert (told["event"]["work"], told["event"]["count"]) == ("records", 1)


def test_plugins_see_a_switch_before_it_is_put_right(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    off = iter([True, False, False, True])

    def put_right() -> list[object]:
        order.append("put right")
        return []

    def scan(_complete: object) -> list[object]:
        order.append("scan")
        return []

    setting.more["ground"] = SimpleNamespace(turned_off=lambda: next(off, False), tick=put_right)
    monkeypatch.setattr(setting.plugins, "scan", scan)
    agent = setting.start()  # which ticks
    agent._news.tell()
    agent._upkeep.roam()
    agent._upkeep.roam()
    assert order == ["scan", "put right", "put right", "scan"]


def test_at_the_end_all_that_is_in_the_ring_is_taken_and_the_last_loss_told(setting: Setting) -> None:
    agent = setting.start()
    agent._signals.stop("SIGTERM")
    setting.happens(3 * BATCH)
    setting.sent(attempts=1, lost=0)  # and never comes
    agent.finish()
    lines = setting.journal(agent)
    assert kinds(lines) == ["krie.started", *["sample.seen"] * 12, "krie.loss", "krie.stopped"]
    assert (lines[-1]["event"]["events"], lines[-1]["event"]["lost"]) == (14, 1)


def test_signals(setting: Setting) -> None:
    agent = setting.start()
    reloaded = threading.Event()
    setting.rule("R2")

    def press() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        reloaded.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGTERM)

    presses = threading.Thread(target=press)

    def first_read() -> None:
        setting.ring.on_read = lambda: reloaded.set() if agent._in_force.policy.revision != revision else None
        presses.start()

    revision = agent._in_force.policy.revision
    setting.ring.on_read = first_read
    assert agent.run(2 * PATIENCE_S) == "SIGTERM"
    presses.join()
    agent.finish()
    assert kinds(setting.journal(agent)) == ["krie.started", "krie.policy", "krie.stopped"]


def test_administrators_are_answered_while_it_runs(setting: Setting) -> None:
    agent = setting.start()
    answers: list[dict[str, Any]] = []

    def administrate() -> None:
        answers.append(ask(Path(setting.config.agent.run_dir), {"ask": "status"}, PATIENCE_S))
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=administrate)

    def first_read() -> None:
        setting.ring.on_read = list
        asking.start()

    setting.ring.on_read = first_read
    agent.run(2 * PATIENCE_S)
    asking.join()
    assert answers[0]["tgid"] == os.getpid()
    assert answers[0]["policy"] == agent._in_force.policy.revision


def test_the_doctor_gets_what_the_agent_has(tmp_path: Path) -> None:
    setting = Setting(tmp_path, probe("alive"))
    setting.config = setting.config.model_copy(update={"executables": {"tool": "/nowhere"}})
    with setting.stack:
        agent = setting.start()
        first = agent._status.answer({"ask": "doctor"}, Peer(1, 0))
        setting.probes.changed = [probe("silent")]
        setting.probes.raised = {"sample.x": "EIO"}
        agent._upkeep.check()
        (setting.policies / "more.rego").write_text(RULE.replace("%s", "R2").replace("site", "more"))
        agent._reload.look_for_changes()
        agent._reload.finish(PATIENCE_S)
        second = agent._status.answer({"ask": "doctor"}, Peer(1, 0))
    assert first["from"] == {"agent": os.getpid()}
    assert [each["state"] for each in first["probes"]] == ["alive"]
    assert first["degraded"] == {}
    assert first["problems"] == ["executables.tool: /nowhere: No such file or directory; no process gets this name"]
    assert [each["state"] for each in second["probes"]] == ["silent"]
    assert (second["healthy"], second["degraded"]) == (False, {"sample.x": "EIO"})
    assert second["rules"] == first["rules"] + 1
    assert {each["id"] for each in second["blind_rules"]} == {"R1", "R2"}


def test_the_next_agent_knows_how_this_one_ended(setting: Setting) -> None:
    agent = setting.start()
    before = Presence(setting.folder / "state").before()
    assert before is not None
    assert (before.tgid, before.clean) == (os.getpid(), False)
    agent.finish()  # for an error: it did not end by itself
    crashed = Presence(setting.folder / "state").before()
    assert crashed is not None
    assert not crashed.clean
    agent._signals.stop("SIGTERM")
    agent._presence.keep(clean=True)
    ended = Presence(setting.folder / "state").before()
    assert ended is not None
    assert ended.clean


def test_a_clean_end_is_noted(setting: Setting) -> None:
    agent = setting.start()
    agent.run(0)
    agent.finish()
    ended = Presence(setting.folder / "state").before()
    assert ended is not None
    assert ended.clean


def test_a_start_that_ends_is_no_death(setting: Setting) -> None:
    agent = setting.arm()
    assert Presence(setting.folder / "state").before() is None
    agent.begin()
    os.kill(os.getpid(), signal.SIGTERM)  # by who waited for the journal to say that it is armed
    assert agent.run(PATIENCE_S) == "SIGTERM"
    agent.finish()
    ended = Presence(setting.folder / "state").before()
    assert ended is not None
    assert ended.clean


def test_a_note_that_cannot_be_written_ends_nothing(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    agent = setting.start()
    (setting.folder / "state/agent.new").symlink_to("/nowhere")
    agent._presence.keep()
    assert "the next agent will not know that this one lived" in caplog.text


def test_the_first_reason_to_stop_stands(setting: Setting) -> None:
    agent = setting.start()
    agent._signals.stop("SIGINT")
    agent._signals.stop("SIGTERM")
    assert agent.run(None) == "SIGINT"


def test_a_plugin_that_blocks_signals_keeps_no_agent(setting: Setting) -> None:
    """Nor one that handles them itself: from then on the watch puts that right."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as at its import, so that all threads do
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        agent = setting.start()
        ended = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        ended.start()
        assert agent.run(PATIENCE_S) == "SIGTERM"
        ended.join()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    isolation = vars(setting.plugins)["_isolation"]
    handler = signal.getsignal(signal.SIGTERM)
    isolation.call("bad", "krie_scan", None, signal.signal, signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is handler
    agent.finish()
    assert "krie.plugin" in kinds(setting.journal(agent))


def test_an_agent_that_was_stopped_tells_the_gap(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SIGSTOP, of which SIGCONT is all that it gets to know, or with its cgroup."""
    agent = setting.start()
    asked: list[bool] = []

    def beat(*, continued: bool) -> float:
        asked.append(continued)
        return 3.5 if continued else 0.0

    monkeypatch.setattr(agent._upkeep, "_pulse", SimpleNamespace(beat=beat))
    agent._upkeep.beat()
    os.kill(os.getpid(), signal.SIGCONT)
    agent._upkeep.beat()
    agent._upkeep.beat()
    assert asked == [False, True, False]
    (gap,) = (line["event"] for line in setting.journal(agent) if line["kind"] == "krie.gap")
    assert (gap["state"], gap["gap_s"], gap["tgid_before"]) == ("held_up", 3, os.getpid())
