"""Recorded events decided again: what the journal holds is enough to decide exactly as the agent did."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from random import Random
from typing import Any

import pytest
from krie.config import PolicyConfig
from krie.errors import ConfigError, PolicyError
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicySources
from krie.processes.sensor import ProcessExec, ProcessFork
from krie.review import replay_pool
from krie.review.compared import UNKNOWN_VALUES, Tally
from krie.review.journal_reader import MOST_LINE, JournalReader, in_order, rotated
from krie.review.replay import Side, report_of
from krie.testing.events import build

from ..recorded_journal import SYSCTL, Recorder, replayed, rule, sources

KIND = f'input.event.kind == "{SYSCTL}"'
EVERYTHING = (
    rule("NAME", "override", KIND, 'input.event.name == "kernel/a"')
    + rule("HOST", "log", 'input.host.name == "here"')
    + rule("HEALTH", "log", "input.health.lost > 2")
    + rule("PARENTS", "kill", KIND, 'some each in input.process.ancestors\n\teach.exe == "/bin/sh"')
    + rule("WHOLE", "log", "count(input.process.ancestors) == 2")
    + rule("ERROR", "log", KIND, "to_number(input.event.new) > 5")
)


def ancestry(recorder: Recorder) -> None:
    """sh (10), its child (11), and of that 4242, which events are of where they start at 4242."""
    path = {"components": b"sh\0bin\0".ljust(768, b"\0"), "length": 7}
    recorder.take(build(ProcessExec, tgid=10, start_time=10, **path))
    for tgid, parent in ((11, 10), (4242, 11)):
        child = {"child_tgid": tgid, "child_start_time": tgid}
        of = {"child_parent_tgid": parent, "child_parent_start_time": parent}
        recorder.take(build(ProcessFork, tgid=parent, start_time=parent, **child, **of))


def busy_journal(path: Path, policy: PolicySources, count: int = 600) -> Path:
    recorder = Recorder(policy)
    ancestry(recorder)
    random = Random(1)
    for number in range(count):
        if number % 100 == 50:
            recorder.bus.health = {"lost": number // 100}
        own = {"start_time": 4242} if random.random() < 0.5 else {}
        name, new = random.choice(["kernel/a", "kernel/b"]), random.choice(["6", "5", "x", "\udcff\x1b", ""])
        recorder.sysctl(name, new=new.encode("utf-8", "replace").decode(), **own)
        if number % 7 == 0:
            recorder.take(build(Ptrace, target_tgid=7))
    return recorder.write(path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return busy_journal(tmp_path / "journal.jsonl", sources(EVERYTHING))


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


# What is not known


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


def test_an_event_of_a_plugin_that_is_not_configured_is_told(tmp_path: Path) -> None:
    policy = sources(rule("A", "log", "input.process.uid == 1"))
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    (tmp_path / "j").write_text(recorder.lines[0].replace(SYSCTL, "other.event"))
    (reason,) = replayed(policy, policy, [tmp_path / "j"]).undecided
    assert "other.event is no event of the configured plugins" in reason


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


# Hostile journals


def test_lines_that_are_none_are_told_and_cost_no_other(tmp_path: Path) -> None:
    policy = sources(EVERYTHING)
    recorder = Recorder(policy)
    recorder.sysctl("kernel/a")
    good = recorder.lines[0].encode()
    bad: list[bytes] = [
        good[:200],
        b"\0" * 5000,
        b"x" * (MOST_LINE + 5),
        b'{"v":1,' + b'"a":[' * 50_000,
        b"[" * 200_000,
        b"null",
        b"{}",
        b'{"v":2}',
        good.replace(b'"v":1', b'"v":true'),
        good.replace(b'"v":1', b'"v":1.0'),
        good.replace(b'"uid":1000', b'"uid":NaN'),
        good.replace(b'"uid":1000', b'"uid":' + b"9" * 5000),
        good.replace(b'"uid":1000', b'"uid":1,"uid":1000'),
        good.replace(b'"kind":"', b'"kind":5,"x":"'),
        good.replace(b'"process":{', b'"process":[],"x":{'),
        good.replace(b'"decision":{', b'"decision":0,"x":{'),
        b"\xff\xfe" + good,
        good.replace(b"kernel/a", b"\xc3\x28"),
    ]
    (tmp_path / "j").write_bytes(
        b"\n".join([good, *(each for line in bad for each in (line, good))]) + b"\n" + good[:-9]
    )
    tally = replayed(policy, policy, [tmp_path / "j"])
    assert tally.same == tally.reproduced == len(bad) + 1
    assert sum(tally.undecided.values()) == len(bad) + 1
    assert tally.lines == 2 * len(bad) + 2


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


def test_special_files_and_files_given_twice_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "j").write_text("x")
    (tmp_path / "link").symlink_to("j")
    (tmp_path / "z").write_bytes(b"\x28\xb5\x2f\xfd....")
    for paths, said in (
        (["fifo"], "is no regular file; for a pipe say -"),
        (["."], "is no regular file"),
        (["none"], "cannot be read"),
        (["/dev/zero"], "is no regular file"),
        (["j", "link"], "which is read already"),
        (["z"], "zstd -dc"),
    ):
        files = [tmp_path / each for each in paths]
        with pytest.raises(ConfigError, match=said), closing(JournalReader(files)) as reader:
            list(reader.pieces())


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_compressed_files_are_read_whatever_they_are_called(journal: Path, compress: Any) -> None:
    policy = sources(EVERYTHING)
    journal.write_bytes(compress(journal.read_bytes()))
    assert replayed(policy, policy, [journal]).reproduced == 686


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_standard_input_is_read_like_a_file(journal: Path, compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = sources(EVERYTHING)
    journal.write_bytes(compress(journal.read_bytes()))
    with subprocess.Popen(["cat", journal], stdout=subprocess.PIPE) as pipe:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(pipe.stdout))  # type: ignore[type-var]
        assert replayed(policy, policy, [Path("-")]).reproduced == 686


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_that_ends_early_is_told(journal: Path, compress: Any) -> None:
    policy = sources(EVERYTHING)
    whole = compress(os.urandom(1 << 16).hex().encode() + b"\n" + journal.read_bytes())
    journal.write_bytes(whole[: len(whole) // 2])
    tally = replayed(policy, policy, [journal])
    assert any("damaged" in each for each in tally.undecided)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = [
        "j.jsonl",
        "j.jsonl.2.gz",
        "j.jsonl.10",
        "j.jsonl.1",
        "j.important.jsonl",
        "k-20260102.xz",
        "k-20260101",
        "k",
    ]
    assert [each.name for each in in_order(map(Path, names))] == [
        "j.jsonl.10",
        "j.jsonl.2.gz",
        "j.jsonl.1",
        "j.jsonl",
        "j.important.jsonl",
        "k-20260101",
        "k-20260102.xz",
        "k",
    ]
    for name in (*names, "j.jsonl.strange.1", "j.jsonl.bak"):
        (tmp_path / name).touch()
    assert {each.name for each in rotated(tmp_path / "j.jsonl")} == {
        "j.jsonl",
        "j.jsonl.1",
        "j.jsonl.2.gz",
        "j.jsonl.10",
    }


# Policies that end, or never do

SLOW = "some a in numbers.range(1, 4000)\n\tsome b in numbers.range(1, 4000)\n\ta * b == 7.5"


def test_a_policy_that_never_answers_for_an_event_is_told(tmp_path: Path) -> None:
    old = sources(rule("A", "log", KIND))
    new = sources(rule("A", "log", KIND) + rule("S", "log", KIND, 'input.event.name == "slow"', SLOW))
    recorder = Recorder(old)
    for name in ("a", "slow", "b"):
        recorder.sysctl(name)
    limits = PolicyConfig(decision_ms=300)
    tally = replayed(old, new, [recorder.write(tmp_path / "j")], limits=limits)
    assert tally.same == 2
    assert tally.undecided == {"the new policy: gave no answer within 300 ms (policy.decision_ms)": 1}


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
    tally = replayed(old, new, files, limits=PolicyConfig(decision_ms=300))
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
