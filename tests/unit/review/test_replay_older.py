"""Lines of older agents: they are decided where no rule reads what they lack, and nothing is guessed."""

import json
from pathlib import Path

import pytest

from ..recorded_journal import Recorder, replayed, rule, sources
from .busy_journal import KIND


def stripped(line: str, *keys: str) -> str:
    found = json.loads(line)
    for key in keys:
        found.pop(key, None)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("condition", "lacks"),
    [
        ('input.host.name == "here"', "host"),
        ("input.health.lost == 0", "health"),
        ("count(input.process.ancestors) == 0", "ancestors"),
        ('object.get(input, "health", {}) == {}', "host, health, ancestors"),
        ("input.process.uid == 1000", ""),
        ("true", ""),
    ],
)
def test_an_older_line_is_decided_only_where_no_rule_reads_what_it_lacks(
    tmp_path: Path, condition: str, lacks: str
) -> None:
    old, new = sources(rule("A", "log", KIND)), sources(rule("A", "log", KIND) + rule("B", "log", KIND, condition))
    recorder = Recorder(old)
    recorder.sysctl("kernel/a")
    (tmp_path / "j").write_text(stripped(recorder.lines[0], "given", "values", "host"))
    tally = replayed(old, new, [tmp_path / "j"])
    if lacks:
        assert (tally.same, tally.different) == (0, 0)
        assert next(iter(tally.undecided)).endswith(f": {lacks}")
    else:
        assert (tally.same + tally.different, dict(tally.undecided)) == (1, {})


def test_a_line_of_an_agent_that_told_no_severities_and_no_host_is_decided_as_it_was(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", KIND))
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    line = json.loads(recorder.lines[0])
    for each in line["decision"]["rules"]:
        assert [each.pop(name) for name in ("severity", "title", "technique")]
    (tmp_path / "j").write_text(stripped(json.dumps(line), "given", "values", "host", "since_boot_ns"))
    tally = replayed(policy, policy, [tmp_path / "j"])
    assert (tally.same, tally.in_force_then, tally.reproduced, dict(tally.undecided)) == (1, 1, 1, {})


def test_a_line_that_lacks_a_field_which_rules_read_is_not_guessed_at(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", KIND, 'input.event.name == "kernel/a"'))
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    line = json.loads(recorder.lines[0])
    del line["event"]["name"]
    del line["event"]["old"]
    (tmp_path / "j").write_text(json.dumps(line))
    (reason,) = replayed(policy, policy, [tmp_path / "j"]).undecided
    assert reason.endswith(": event.name")
