"""Which lines are written, which are kept longer, and that a flood of the ones turns nothing over of the others."""

from pathlib import Path
from typing import Any

import pytest
from krie import Action, Event, FiredRule
from krie.agent.journal import important_path, open_writers
from krie.agent.journal_file import JournalFile
from krie.agent.selection import Selection
from krie.config import JournalConfig
from krie.decision import Decision, Mode, merge
from krie.enforce.enforcer import Effect
from krie.events.agent import Stopped
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.policy.engine import Rule
from krie.policy.metadata import Metadata
from krie.processes.principal import Principals
from krie.processes.process import NOTHING as NOTHING_KNOWN
from krie.processes.sensor import ProcessExec, ProcessFork
from krie.processes.table import ProcessTable
from krie.testing.events import build

NOTHING = Effect(Mode.OBSERVE)


def decided(*rules: tuple[str, Action]) -> Decision:
    return merge([FiredRule(*each) for each in rules], tier="user", revision="r")


def rule(name: str, severity: str) -> Rule:
    fired = FiredRule(name, Action.LOG)
    return Rule(name, "krie.x", "x.rego:1", Metadata(severity=severity), fired, frozenset(), frozenset())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def selection(min_action: Action = Action.ALLOW, clock: Clock | None = None, **how: Any) -> Selection:
    made = Selection(min_action, [Stopped.KIND], clock or Clock(), **how)
    made.policy_changed([rule("LOW", "low"), rule("MEDIUM", "medium"), rule("HIGH", "high"), rule("WORST", "critical")])
    return made


def test_what_is_kept_longer() -> None:
    made, event = selection(), build(Ptrace)
    asked = {
        name: made.matters(event, decided((name, Action.LOG)), NOTHING) for name in ("LOW", "MEDIUM", "HIGH", "WORST")
    }
    assert asked == {"LOW": False, "MEDIUM": False, "HIGH": True, "WORST": True}
    assert made.matters(event, decided(("LOW", Action.OVERRIDE)), NOTHING)
    assert made.matters(event, decided(), Effect(Mode.ENFORCE, ("refused",)))
    made.policy_changed([])
    assert not made.matters(event, decided(("HIGH", Action.LOG)), NOTHING)


@pytest.mark.parametrize(
    ("least", "rules", "done", "wanted"),
    [
        (Action.ALLOW, (), (), True),
        (Action.LOG, (), (), False),
        (Action.LOG, (), ("refused",), True),
        (Action.LOG, (("LOW", Action.LOG),), (), True),
        (Action.KILL, (("HIGH", Action.OVERRIDE),), (), False),
    ],
)
def test_the_least_action_of_a_line(
    least: Action, rules: tuple[tuple[str, Action], ...], done: tuple[str, ...], wanted: bool
) -> None:
    made = selection(least)
    assert made.wanted(build(Ptrace), decided(*rules), Effect(Mode.ENFORCE, done)) is wanted
    assert made.wanted(build(Stopped), decided(), NOTHING)


def test_many_alike_are_few_a_minute_and_counted() -> None:
    clock = Clock()
    made, high = selection(clock=clock), decided(("HIGH", Action.LOG))
    kept = sum(made.matters(build(Ptrace, uid=7), high, NOTHING) for _ in range(1000))
    assert 40 < kept < 60
    assert made.left_out == 1000 - kept
    assert made.matters(build(Ptrace, uid=8), high, NOTHING)  # another user
    assert made.matters(build(Ptrace, uid=7), decided(("WORST", Action.LOG)), NOTHING)  # another rule
    clock.now += 60
    assert 9 <= sum(made.matters(build(Ptrace, uid=7), high, NOTHING) for _ in range(1000)) <= 11


def test_who_has_many_users_fills_it_no_faster() -> None:
    """Whoever has subordinate users takes one after the other, in a user namespace of his own."""
    table = ProcessTable(1000, lambda _: NOTHING_KNOWN)
    table.feed(build(ProcessExec, tgid=5, start_time=50, parent_tgid=1, uid=1000))
    child = {"child_tgid": 6, "child_start_time": 60, "child_parent_tgid": 5, "child_parent_start_time": 50}
    table.feed(build(ProcessFork, tgid=5, start_time=50, parent_tgid=1, uid=1000, **child))
    made, high = selection(whose=Principals(table, 0)), decided(("HIGH", Action.LOG))
    acts = [build(Ptrace, tgid=6, start_time=60, parent_tgid=5, uid=100_000 + number) for number in range(1000)]
    assert sum(made.matters(each, high, NOTHING) for each in acts) == 51


def test_users_without_number_fill_no_memory() -> None:
    made, high = selection(), decided(("HIGH", Action.LOG))
    for uid in range(20_000):
        made.matters(build(Ptrace, uid=uid), high, NOTHING)
    assert len(made._due) < 20_000


def test_an_hour_of_flood_turns_the_line_of_a_kill_not_over(tmp_path: Path) -> None:
    """With files of 16 KiB: the flood's lines go round in the journal, and the kill's is still in the other one."""
    path = tmp_path / "journal.jsonl"
    journal, important = JournalFile(path, 16 << 10, 2), JournalFile(important_path(path), 64 << 10, 20)
    clock = Clock()
    made = selection(clock=clock)

    def happens(event: Event, decision: Decision, outcome: Effect, line: bytes) -> None:
        journal.write(line)
        if made.matters(event, decision, outcome):
            important.write(line)

    happens(build(Ptrace, uid=7), decided(("USER", Action.KILL)), Effect(Mode.ENFORCE, ("killed",)), b"the kill\n")
    for _ in range(36_000):  # ten a second, of a rule that is severe itself, of the same user and kind
        clock.now += 0.1
        happens(build(Ptrace, uid=7), decided(("HIGH", Action.LOG)), NOTHING, b"f" * 1163 + b"\n")

    def kept(of: Path) -> bool:
        return any(b"the kill\n" in each.read_bytes() for each in tmp_path.glob(f"{of.name}*"))

    assert not kept(path)
    assert kept(important_path(path))


def test_both_files_are_opened_beside_each_other(tmp_path: Path) -> None:
    made = open_writers(JournalConfig(path=str(tmp_path / "journal.jsonl")), None, lambda _: None)
    (everything,), (important,) = made.everything, made.important
    everything.write("all")
    important.write("matters")
    for each in made.all:
        each.close()
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        "journal.jsonl": "all\n",
        "journal.important.jsonl": "matters\n",
    }
    assert open_writers(JournalConfig(path=""), None, lambda _: None).all == ()
