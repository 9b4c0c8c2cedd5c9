"""Values of any type, and policies that fail, never answer or end their process: a replay says so and goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from krie.config import PolicyConfig
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicySources
from krie.review import replay_pool
from krie.review.compared import UNKNOWN_VALUES, Tally
from krie.review.replay import Side, report_of

from ..recorded_journal import Recorder, replayed, rule, sources
from .busy_journal import EVERYTHING, KIND

WRONG: list[Any] = [None, 5, -1, "x", [], {}, True, 1.5, {"a": {"b": []}}, 10**300, "\ud800", "\x1b[2J"]


def test_values_of_any_type_end_nothing(tmp_path: Path) -> None:
    policy = sources(EVERYTHING)
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    line, lines = json.loads(recorder.lines[0]), []

    def put(at: dict[str, Any]) -> None:
        for key in list(at):
            before = at[key]
            for wrong in WRONG:
                at[key] = wrong
                lines.append(json.dumps(line))
            at[key] = before
            if isinstance(before, dict):
                put(before)

    put(line)
    (tmp_path / "j").write_text("\n".join(lines))
    old = replayed(policy, policy, [tmp_path / "j"])
    assert old.lines == len(lines) > 500
    assert not old.different
    report_of(old, *sides(policy, policy), [tmp_path / "j"], ())


SLOW = "some a in numbers.range(1, 50000)\n\tsome b in numbers.range(1, 50000)\n\ta * b == 7.5"


def test_a_policy_that_never_answers_for_an_event_is_told(tmp_path: Path) -> None:
    old = sources(rule("A", "log", KIND))
    new = sources(rule("A", "log", KIND) + rule("S", "log", KIND, 'input.event.name == "slow"', SLOW))
    recorder = Recorder(old)
    for name in ("a", "slow", "b"):
        recorder.sysctl(name)
    limits = PolicyConfig(decision_ms=1000)
    tally = replayed(old, new, [recorder.write(tmp_path / "j")], limits=limits)
    assert tally.same == 2
    assert tally.undecided == {"the new policy: gave no answer within 1000 ms (policy.decision_ms)": 1}


def test_another_process_knows_what_the_one_before_was_told(tmp_path: Path) -> None:
    old = sources(rule("A", "log", "input.health.lost == 0"))
    new = sources(
        rule("A", "log", "input.health.lost == 0") + rule("S", "log", KIND, 'input.event.name == "slow"', SLOW)
    )
    recorder = Recorder(old)
    for name in ("a", "slow", "b"):
        recorder.sysctl(name)
    files = [tmp_path / "j.1", tmp_path / "j"]
    for file, lines in zip(files, (recorder.lines[:1], recorder.lines[1:]), strict=True):
        file.write_text("".join(f"{line}\n" for line in lines))
    tally = replayed(old, new, files, limits=PolicyConfig(decision_ms=1000))
    assert (tally.same, sum(tally.undecided.values()), UNKNOWN_VALUES in tally.undecided) == (2, 1, False)


def test_a_policy_that_ends_its_process_is_told_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = 'count(sprintf("%1000000000d", [input.process.uid])) > 5\n\tbits.lsh(1, 8000000000) > 7'
    old = sources(rule("A", "log", KIND))
    new = sources(rule("A", "log", KIND) + rule("S", "log", KIND, 'input.event.name == "big"', big))
    recorder = Recorder(old)
    for name in ("a", *["big"] * 3, "b"):
        recorder.sysctl(name)
    limits = PolicyConfig(memory_mib=64, decision_ms=20_000)
    tally = replayed(old, new, [recorder.write(tmp_path / "j")], limits=limits)
    assert tally.same == 2
    (reason,) = tally.undecided
    assert reason.startswith("the new policy: the process that decided was ended by SIG")
    monkeypatch.setattr(replay_pool, "MOST_FAILURES", 2)
    with pytest.raises(
        PolicyError, match=r"2 of the recorded events cannot be decided; the first: j:2: the new policy"
    ):
        replayed(old, new, [tmp_path / "j"], limits=limits)


def test_a_rule_that_cannot_be_evaluated_reacts_as_the_agent_does(tmp_path: Path) -> None:
    old = sources(rule("A", "log", KIND))
    new = sources(rule("A", "log", KIND, "to_number(input.event.new) == 1"))
    recorder = Recorder(old)
    recorder.sysctl("x", new="no number")
    tally = replayed(old, new, [recorder.write(tmp_path / "j")])
    assert {key[:2] for key in tally.changes} == {
        ("A", "no longer fires"),
        ("policy.on_error", "fires"),
    }
    assert "could not parse" in str(tally.errors) or tally.errors


def sides(old: PolicySources, new: PolicySources) -> tuple[Side, Side]:
    made = [Side(name, each.revision, EmbeddedEngine(each).packages) for name, each in (("old", old), ("new", new))]
    return made[0], made[1]


def test_tallies_of_hostile_names_stay_small() -> None:
    tally = Tally()
    for number in range(30):
        more = Tally()
        for each in range(5000):
            more.changes["R", "fires", f"{number} {each}", "h", "d"] += 1
            more.left_out(f"{number} {each}", 0, each + 1)
        tally.add(more)
    assert len(tally.changes) <= 50_001
    assert len(tally.undecided) <= 201
    assert sum(tally.changes.values()) == sum(tally.undecided.values()) == 150_000
