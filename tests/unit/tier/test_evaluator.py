"""Policies that crash, hang or eat memory: each evaluation ends in time, and costs only their own rules."""

import json
import os
import time
from pathlib import Path

import pytest
from krie.decision import Action
from krie.errors import ConfigError, PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Partly
from krie.policy.policy import Policy
from krie.testing.patience import PATIENCE_S

from .harmful import ALWAYS, BRACKETS, CRASHES, LIMITS, LOOP, MEMORY, MUTUAL, NEVER, RECURSION, ROWS, Setting, asked


def test_it_answers_what_the_engine_answers(setting: Setting) -> None:
    setting.bad(("", 'to_number("x") == 1'), NEVER)
    made = setting.evaluator()
    engine = EmbeddedEngine(made._sources)
    for uid in (1, NEVER):
        document = json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}})
        assert made.evaluate(made.packages, document) == engine.evaluate(engine.packages, document)
    assert (made.revision, made.rules, made.packages) == (engine.revision, engine.rules, engine.packages)
    assert made.replaced == 0


def test_an_error_costs_one_rule(setting: Setting) -> None:
    setting.bad(("", 'to_number("x") == 1'), NEVER)
    other = 'rules contains {"id": "OTHER", "action": "kill"} if input.event.kind == "sample.seen"\n'
    text = setting.folder / "bad.rego"
    text.write_text(text.read_text() + other)
    made = setting.evaluator()
    answer = asked(made, NEVER)
    assert answer["good"] == ["GOOD"]
    assert isinstance(partly := answer["bad"], Partly)
    assert [each.id for each in partly.fired] == ["OTHER"]
    assert partly.why.startswith("rule BAD: ")
    assert made.replaced == 0
    decided = Policy(made, on_error=Action.LOG, memo=0).decide(
        "sample.seen", {"event": {"kind": "sample.seen"}, "process": {"uid": NEVER}}
    )
    assert decided.action == Action.KILL
    assert decided.error.startswith("data.krie.bad: rule BAD: ")


def test_rules_one_by_one_stay_within_the_time_of_a_decision(setting: Setting) -> None:
    """Each is quick enough, and all of them together are not."""
    setting.limits = LIMITS.model_copy(update={"decision_ms": 4000})
    slow = "count([1 | some i in numbers.range(1, 1000); some j in numbers.range(1, 1000); i == j + 5000]) == 5"
    setting.bad(("", 'to_number("x") == 1'), NEVER)
    text = setting.folder / "bad.rego"
    more = "".join(
        f'rules contains {{"id": "S{number}", "action": "log"}} if {{\n\tinput.process.uid == {NEVER}\n\t{slow}\n}}\n'
        for number in range(60)
    )
    text.write_text(text.read_text() + more)
    made = setting.evaluator()
    answer = asked(made, NEVER)["bad"]
    assert isinstance(answer, Partly)
    assert made.replaced == 0
    assert "too long" in str(answer.errors)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (RECURSION, "recursive|SIGSEGV"),
        (MUTUAL, "recursive|SIGSEGV"),
        (LOOP, r"(within 6 s|SIGXCPU).*at data.krie.bad for an event of sample.seen"),
        (MEMORY, "SIGABRT .*at data.krie.bad for an event of sample.seen"),
        (ROWS, "SIGABRT|memory|within 6 s|SIGXCPU"),
        (BRACKETS, "bad.rego:8:.*: is nested deeper than 12 levels"),
        (("", f"x := {'(' * 20000}1{')' * 20000}"), "bad.rego:8:.*: is nested deeper than 64 levels"),
    ],
)
def test_a_policy_that_ends_or_blocks_what_tries_it_is_refused(
    setting: Setting, what: tuple[str, str], message: str
) -> None:
    setting.bad(what, ALWAYS)
    setting.limits = LIMITS.model_copy(update={"load_s": 6}) if "within 6 s" in message else LIMITS
    with pytest.raises(PolicyError, match=message):
        setting.evaluator()
    setting.limits = LIMITS
    (setting.folder / "bad.rego").unlink()
    assert asked(setting.evaluator()) == {"good": ["GOOD"]}


@pytest.mark.parametrize("name", CRASHES)
def test_a_policy_that_ends_what_decides_costs_only_its_own_rules(setting: Setting, name: str) -> None:
    setting.bad(CRASHES[name], NEVER)
    made = setting.evaluator()
    assert asked(made) == {"bad": [], "good": ["GOOD"]}
    answer = asked(made, NEVER)
    assert str(answer["bad"]).startswith("data.krie.bad: ")
    assert answer["good"] == ["GOOD"]
    assert asked(made)["good"] == ["GOOD"]
    policy = Policy(made, on_error=Action.LOG, memo=100)
    decision = policy.decide("sample.seen", {"event": {"kind": "sample.seen"}, "process": {"uid": NEVER}})
    assert "data.krie.bad" in decision.error
    assert [each.id for each in decision.rules] == ["GOOD", "policy.on_error"]


def test_a_policy_that_does_not_answer_costs_the_deadline_and_then_rests(setting: Setting) -> None:
    setting.bad(LOOP, NEVER)
    made = setting.evaluator()
    started = time.monotonic()
    assert "gave no answer within 1000 ms" in str(asked(made, NEVER)["bad"])
    assert 1 <= time.monotonic() - started < 1 + PATIENCE_S
    assert setting.meanwhile >= 3  # the agent could look after its ring
    count = made.replaced
    assert "not asked about this for" in str(asked(made, NEVER)["bad"])
    assert made.replaced == count
    assert asked(made)["bad"] == []  # other inputs are decided
    assert list(made.failures)
    assert all("krie.bad" in each for each in made.failures)


def test_memory_is_bounded(setting: Setting) -> None:
    setting.bad(MEMORY, NEVER)
    made = setting.evaluator()
    keeper = int(Path(f"/proc/{made.keeper}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    limits = Path(f"/proc/{made.worker}/limits").read_text().splitlines()
    (most,) = (int(line.split()[3]) for line in limits if line.startswith("Max address space"))
    assert most < keeper + (LIMITS.memory_mib << 20) + (64 << 20)
    (core,) = (line.split()[4] for line in limits if line.startswith("Max core file size"))
    assert core == "0"


def test_a_file_that_is_wrong_is_told_as_before(setting: Setting) -> None:
    (setting.folder / "good.rego").chmod(0o666)
    with pytest.raises(ConfigError, match="good.rego: can be changed by other users"):
        setting.evaluator()
    (setting.folder / "good.rego").chmod(0o644)
    (setting.folder / "deep.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(PolicyError, match="deep.json:1:.*: is nested deeper than 100 levels"):
        setting.evaluator()
