"""A plugin that misbehaves in an agent that runs: it goes on, says which plugin it was, and ends when it is told."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.testing.agent import RunningAgent, fired
from krie.testing.patience import PATIENCE_S

BAD = """
import ctypes, os, signal, sys, threading, time
import krie

threading.Thread(target=time.sleep, args=(10_000,)).start()
print("at import")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

class Panic(BaseException): pass

def panic(event, decision): raise Panic("no")
def interrupt(event, decision): raise KeyboardInterrupt
def leave(event, decision): sys.exit(3)
def talk(event, decision): print("hello from a plugin"); os.system("echo and from a shell"); sys.stdout.flush()
def close(event, decision): os.close(1)
def ignore(event, decision): signal.signal(signal.SIGTERM, signal.SIG_IGN)
def fork(event, decision): os.fork()
def recurse(event, decision): recurse(event, decision)
def grow(event, decision): bytearray(1 << 62)
def spoil(event, decision): object.__setattr__(decision, "action", None)
def sleep(event, decision): time.sleep(4)

DEEDS = [panic, interrupt, leave, talk, close, ignore, fork, recurse, grow, spoil] + [sleep] * 9

@krie.hookimpl
def krie_decided(event, decision):
    if type(event).__name__ == "Ptrace" and DEEDS:
        DEEDS.pop(0)(event, decision)
"""
DEEDS = 19


def write(folder: Path) -> Path:
    package, metadata = folder / "krie_bad", folder / "krie_bad-1.dist-info"
    for each in (package, metadata):
        each.mkdir(parents=True)
    (package / "__init__.py").write_text(BAD)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: krie-bad\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[krie]\nbad = krie_bad\n")
    return folder


@pytest.mark.once
def test_an_agent_survives_a_plugin_that_misbehaves(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    plugins: dict[str, dict[str, object]] = {"runtime_integrity": {"watch_credentials": False}, "bad": {}}
    with RunningAgent(tmp_path, plugins=plugins, plugin_folders=[write(tmp_path / "plugin")]) as agent:
        trace = "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)"
        for _ in range(DEEDS):
            subprocess.run(["/usr/bin/python3", "-IS", "-c", trace], check=True)
        agent.wait("krie.plugin", lambda line: line["event"]["state"] == "degraded")
        told = [line["event"] for line in agent.lines("krie.plugin")]
        assert {each["plugin"] for each in told} == {"bad"}
        assert [each["state"] for each in told].count("degraded") == 1
        # Where this machine is busy, one that sleeps may be interrupted.
        assert any(re.search(r"it took \d+\.\d s for one event", each["reason"]) for each in told)
        agent.wait("runtime_integrity.ptrace", count=DEEDS)
        assert ask(agent.run_dir, {"ask": "status"}, agent.timeout_s)["policy"]
        before = time.monotonic()
        assert agent.stop() == 0  # by SIGTERM, and with a thread that sleeps
        assert time.monotonic() - before < PATIENCE_S
    numbers = [json.loads(line)["seq"] for line in agent.journal.read_bytes().splitlines()]
    assert len(numbers) == len(set(numbers))  # no second agent writes
    for said in (
        "at import",
        "hello from a plugin",
        "and from a shell",
        "came back into the agent's code",
        "Panic: no",
    ):
        assert said in agent.stderr
    (stopped,) = agent.lines("krie.stopped")
    assert stopped["event"]["reason"] == "SIGTERM"


@pytest.mark.once
def test_an_agent_that_was_stopped_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with RunningAgent(tmp_path, plugins={}) as agent:
        os.kill(agent.process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(agent.process.pid, signal.SIGCONT)
        gap = agent.wait("krie.gap")[0]
    assert gap["event"]["state"] == "held_up"
    assert gap["event"]["tgid_before"] == agent.process.pid
    assert gap["event"]["gap_s"] >= 1
    assert fired(gap) == [("AGENT008", "log")]
