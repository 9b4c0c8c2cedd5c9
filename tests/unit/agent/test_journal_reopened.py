"""An agent notices what is done to its journal's files, and opens them again."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from krie.agent.agent import Agent
from krie.agent.journal import LOOK_S
from krie.testing.patience import PATIENCE_S

from .setting import Setting, kinds, probe


def ends_once_a_line_says(agent: Agent, journal: Path, kind: str, *, signals: tuple[signal.Signals, ...] = ()) -> None:
    """Take the journal's file away while the agent runs, send it these signals, and end it when it tells that."""
    moved = journal.with_name("taken")

    def take() -> None:
        while not journal.read_bytes():
            time.sleep(0.01)
        journal.rename(moved)
        for number in signals:
            os.kill(os.getpid(), number)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not (journal.exists() and kind in journal.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    taker = threading.Thread(target=take)
    taker.start()
    assert agent.run(2 * PATIENCE_S) == "SIGTERM"
    taker.join()
    agent.finish()


def test_a_journal_that_is_taken_away_is_told_in_the_new_one(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    assert LOOK_S < 1
    agent = setting.start()
    path = setting.folder / "journal.jsonl"
    ends_once_a_line_says(agent, path, "krie.journal")
    told, stopped = setting.journal(agent)
    assert (told["kind"], stopped["kind"]) == ("krie.journal", "krie.stopped")
    lines = told["event"]["lines"]  # such as that a busy machine held the agent up
    assert told["event"] == {"lines": lines, "bytes": 0, "path": str(path), "detail": "", "state": "moved"}
    assert f"journal {path}: moved; {lines} lines went elsewhere" in caplog.text


def test_sighup_opens_the_journal_anew(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.agent.journal.LOOK_S", 10 * PATIENCE_S)  # nobody looks
    agent = setting.start()
    ends_once_a_line_says(agent, setting.folder / "journal.jsonl", "krie.journal", signals=(signal.SIGHUP,))
    assert kinds(setting.journal(agent))[0] == "krie.journal"


def test_the_file_for_what_matters_is_watched_too(setting: Setting) -> None:
    agent = setting.start()
    setting.probes.changed = [probe("silent")]  # severe: it is in both files
    agent._upkeep.check()
    important = setting.folder / "journal.important.jsonl"
    ends_once_a_line_says(agent, important, "krie.journal")
    (told,) = (json.loads(line) for line in important.read_text().splitlines())
    assert (told["event"]["state"], told["event"]["path"]) == ("moved", str(important))
    assert "krie.journal" in kinds(setting.journal(agent))
