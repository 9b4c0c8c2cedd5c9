"""Recorded events decided again: what the journal holds is enough to decide exactly as the agent did."""

import json
from dataclasses import replace
from pathlib import Path

from krie.review.compared import UNKNOWN_VALUES
from krie.review.journal_reader import in_order

from ..recorded_journal import SYSCTL, Recorder, replayed, rule, sources
from .busy_journal import EVERYTHING, KIND, busy_journal


def test_a_policy_replayed_against_itself_differs_in_no_line(journal: Path) -> None:
    policy = sources(EVERYTHING)
    tally = replayed(policy, policy, [journal], jobs=2)
    assert (tally.lines, tally.same, tally.different) == (686, 686, 0)
    assert not tally.undecided


def test_the_policy_in_force_decides_as_the_agent_did(journal: Path) -> None:
    policy = sources(EVERYTHING)
    tally = replayed(policy, policy, [journal])
    assert tally.in_force_then == tally.reproduced == 686
    fired = {each["id"] for line in journal.read_text().splitlines() for each in json.loads(line)["decision"]["rules"]}
    assert fired >= {"NAME", "HOST", "HEALTH", "PARENTS", "WHOLE", "policy.on_error"}


def test_a_decision_that_was_another_is_told(journal: Path) -> None:
    text = journal.read_text().replace('"action":"kill","scope"', '"action":"allow","scope"', 1)
    journal.write_text(text)
    policy = sources(EVERYTHING)
    tally = replayed(policy, policy, [journal])
    assert (tally.in_force_then, tally.reproduced) == (686, 685)
    assert "allow" in tally.not_reproduced[0].old


def test_another_policy_of_the_same_revision_is_another_one(tmp_path: Path) -> None:
    """A bundle's manifest says any revision that its maker chose."""
    old = sources(rule("A", "log", KIND))
    new = replace(sources(rule("A", "kill", KIND)), revision=old.revision)
    recorder = Recorder(old)
    recorder.sysctl("kernel/a")
    journal = recorder.write(tmp_path / "j")
    assert replayed(old, new, [journal]).different == 1
    assert replayed(old, replace(old, revision="x"), [journal]).same == 1
    assert replayed(old, replace(old, data={"a": 1}), [journal]).same == 1


def test_a_policy_that_asks_for_the_time_does_not_differ_from_itself(tmp_path: Path) -> None:
    old = sources(rule("A", "log", KIND, "time.now_ns() % 2 == 0") + rule("B", "log", KIND, 'rand.intn("x", 9) > 4'))
    recorder = Recorder(old)
    for number in range(100):
        recorder.sysctl(f"kernel/{number}")
    tally = replayed(old, sources(rule("C", "log", KIND)), [recorder.write(tmp_path / "j")])
    assert tally.different == 100
    assert replayed(old, old, [tmp_path / "j"]).same == 100


def test_differences_are_counted_by_rule_program_host_and_day(tmp_path: Path) -> None:
    old = sources(rule("A", "log", KIND, 'input.event.name == "kernel/a"'))
    new = sources(
        rule("A", "override", KIND, 'input.event.name == "kernel/a"') + rule("B", "kill", "input.process.uid == 7")
    )
    recorder = Recorder(old)
    for number in range(10):
        recorder.sysctl("kernel/a" if number < 4 else "kernel/b", uid=7 if number == 9 else 1)
    tally = replayed(old, new, [recorder.write(tmp_path / "j")])
    day = json.loads(recorder.lines[0])["time"][:10]
    assert tally.changes == {
        ("A", "log becomes override", "test", "here", day): 4,
        ("B", "fires", "test", "here", day): 1,
    }
    assert tally.outcomes == {("log", "override"): 4, ("allow", "kill"): 1}
    assert [(each.line, each.old, each.new) for each in tally.examples["B", "fires"]] == [
        (10, "allow: no rule", "kill: B")
    ]
    assert len(tally.examples["A", "log becomes override"]) == 3


def test_how_many_processes_decide_changes_nothing(tmp_path: Path) -> None:
    old = sources(EVERYTHING)
    new = sources(EVERYTHING.replace("kernel/a", "kernel/b"))
    journal = busy_journal(tmp_path / "j", old, 3000)
    one, three = (replayed(old, new, [journal], jobs=jobs) for jobs in (1, 3))
    assert one == three
    assert one.different > 1000


def test_an_event_of_a_plugin_that_is_not_configured_is_told(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", "input.process.uid == 1"))
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    (tmp_path / "j").write_text(recorder.lines[0].replace(SYSCTL, "other.event"))
    (reason,) = replayed(policy, policy, [tmp_path / "j"]).undecided
    assert "other.event is not an event of the configured plugins" in reason


def test_values_are_found_in_other_files_and_in_later_lines(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", "input.health.lost == 0"))
    recorder = Recorder(policy)
    for _ in range(700):
        recorder.sysctl("kernel/a")
    lines = recorder.lines
    (tmp_path / "j.1").write_text("\n".join(lines[:5]) + "\n")
    (tmp_path / "j").write_text("\n".join(lines[5:200]) + "\n")
    assert replayed(policy, policy, in_order([tmp_path / "j", tmp_path / "j.1"]), jobs=2).same == 200
    (tmp_path / "later").write_text("\n".join(lines[5:300]) + "\n")
    assert replayed(policy, policy, [tmp_path / "later"]).reproduced == 295
    alone = replayed(policy, policy, [tmp_path / "j"])
    assert (alone.same, dict(alone.undecided)) == (0, {UNKNOWN_VALUES: 195})


def test_a_value_that_was_changed_is_none(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", "input.health.lost == 0"))
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    line = json.loads(recorder.lines[0])
    line["values"] = {digest: {"lost": 0, "forged": 1} for digest in line["values"]}
    (tmp_path / "j").write_text(json.dumps(line))
    assert replayed(policy, policy, [tmp_path / "j"]).undecided == {UNKNOWN_VALUES: 1}


def test_events_that_are_not_in_the_files_are_counted(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", KIND))
    recorder = Recorder(policy)
    for _ in range(10):
        recorder.sysctl("kernel/a")
    (tmp_path / "j").write_text("\n".join([*recorder.lines[:3], *recorder.lines[7:]]) + "\n")
    assert replayed(policy, policy, [tmp_path / "j"]).absent == 4
    (tmp_path / "j.1").write_text("\n".join(recorder.lines[:3]) + "\n")
    (tmp_path / "j").write_text("\n".join(recorder.lines[7:]) + "\n")
    assert replayed(policy, policy, [tmp_path / "j.1", tmp_path / "j"]).absent == 4
    again = Recorder(policy)  # another run of the agent, which counts from 1
    again.sysctl("kernel/a")
    assert replayed(policy, policy, [tmp_path / "j.1", again.write(tmp_path / "k")]).absent == 0
