"""A flood of calls that the kernel refuses: what another user does meanwhile is decided at once, and told for long."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from krie.agent.admin import ask
from krie.testing.agent import fired
from krie.testing.patience import wait_for

from .site import KIND, NOBODY, OTHER, Site, attacked

pytestmark = [pytest.mark.once, pytest.mark.needs("raw_tracepoint")]
PTRACE = "runtime_integrity.ptrace"
FLOOD = "while call(101, 16, 1, 0, 0) == -1: pass"  # PTRACE_ATTACH to tgid 1
FLOODERS = (NOBODY, NOBODY, OTHER - 1)
MOST_BEFORE = 2000
"""Records that are judged before a trigger: the floods make as many in some milliseconds, but most are held back."""


@pytest.fixture(scope="module")
def site(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Its journal holds what the floods are told in seconds."""
    with attacked(tmp_path_factory.mktemp("ptrace"), "runtime_integrity", max_mib=1, keep=1) as made:
        yield made


@pytest.fixture
def floods(site: Site) -> Iterator[list[subprocess.Popen[str]]]:
    with ExitStack() as stack:
        made = [stack.enter_context(site.process(user, FLOOD)) for user in FLOODERS]
        for each in made:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        site.agent.wait(PTRACE, lambda line: line["process"]["uid"] == NOBODY)
        yield made
        assert [each.poll() for each in made] == [None] * len(made)  # all this time


def judged(site: Site) -> int:
    """Events so far."""
    return int(ask(site.agent.run_dir, {"ask": "status"}, site.agent.timeout_s)["events"])


def in_journal(path: Path, tgid: int) -> bool:
    """Whether a file of the journal, or one that it was rotated to, tells of the process."""
    texts = []
    for file in path.parent.glob(f"{path.name}*"):
        with contextlib.suppress(FileNotFoundError):  # rotated meanwhile
            texts.append(file.read_text())
    lines = (json.loads(each) for text in texts for each in text.splitlines() if each.endswith("}"))
    return any((line["kind"], line["process"]["tgid"]) == (KIND, tgid) for line in lines)


def test_a_trigger_is_decided_at_once_and_its_line_outlives_the_flood(
    site: Site, floods: list[subprocess.Popen[str]]
) -> None:
    held = sum(site.held())
    with site.process(OTHER, "ask(7001)\ntime.sleep(60)") as culprit:
        time.sleep(1)  # until it waits: far beyond the floods' budgets
        before = judged(site)
        culprit.communicate("\n")
        assert culprit.returncode == -signal.SIGKILL
    (line,) = site.agent.wait(KIND, lambda line: line["process"]["tgid"] == culprit.pid)
    assert line["seq"] - before < MOST_BEFORE
    assert ("USER", "kill") in fired(line)
    journal, important = site.agent.journal, site.agent.journal.with_name("journal.important.jsonl")
    wait_for(lambda: in_journal(important, culprit.pid))  # told to the test first
    wait_for(lambda: any(journal.parent.glob(f"{journal.name}.*")) and not in_journal(journal, culprit.pid))
    assert in_journal(important, culprit.pid)
    assert sum(site.held()) - held > MOST_BEFORE
    assert KIND not in {each["event"]["lost_kind"] for each in site.agent.lines("krie.loss")}
