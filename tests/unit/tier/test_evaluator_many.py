"""Many events that are asked about at once are answered as each alone."""

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from krie.child import Child, ChildEnded
from krie.policy.embedded import EmbeddedEngine
from krie.tier import compiled
from krie.tier.evaluator import Evaluator

from .harmful import CRASHES, GOOD, LIMITS, LOOP, NEVER, Setting, asked


def documents(*uids: int) -> list[str]:
    return [json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}}) for uid in uids]


def answered_many(made: Evaluator, *uids: int) -> list[dict[str, object]]:
    """The same as `asked`, of several at once."""
    packages = tuple(made.packages)
    names = [each.name.rpartition(".")[2] for each in packages]
    return [
        {
            name: [each.id for each in answer] if isinstance(answer, tuple) else answer
            for name, answer in zip(names, each.answers, strict=True)
        }
        for each in made.evaluate_many([(packages, document) for document in documents(*uids)])
    ]


def test_many_are_answered_as_each_alone(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.bad(("", 'to_number("x") == 1'), NEVER)
    made = setting.evaluator()
    uids = [*range(10), NEVER] * 40
    apart = {uid: asked(made, uid) for uid in set(uids)}
    sent: list[int] = []
    send = Child.send_bytes

    def noted(self: Child, *given: Any) -> None:
        sent.append(1)
        send(self, *given)

    monkeypatch.setattr(Child, "send_bytes", noted)
    assert answered_many(made, *uids) == [apart[uid] for uid in uids]
    assert len(sent) == -(-len(uids) // made.together)  # a request for each batch
    assert answered_many(made) == []
    assert made.replaced == 0
    assert made.evaluate_many([((), documents(1)[0])])[0].answers == []


@pytest.mark.parametrize("name", [*CRASHES, "loop"])
def test_of_many_the_culprit_alone_costs_its_own_rules(setting: Setting, name: str) -> None:
    setting.bad({**CRASHES, "loop": LOOP}[name], NEVER)
    made = setting.evaluator()
    *before, culprit, after = answered_many(made, 1, 2, NEVER, 3)
    assert [*before, after] == [{"bad": [], "good": ["GOOD"]}] * 3
    assert str(culprit["bad"]).startswith("data.krie.bad: ")
    assert culprit["good"] == ["GOOD"]
    assert answered_many(made, 1)[0]["good"] == ["GOOD"]


def test_many_are_answered_by_another_one_where_somebody_ended_the_first(setting: Setting) -> None:
    made = setting.evaluator()
    for _ in range(2):
        assert made.worker is not None
        os.kill(made.worker, signal.SIGKILL)
        assert answered_many(made, *range(300)) == [{"good": ["GOOD"]}] * 300


def test_answers_that_are_long_together_are_fetched_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_LONGEST_ANSWERS", 100)  # of the processes that are forked from here on
    with ExitStack() as stack:
        made = Setting(tmp_path, stack).evaluator()
        assert len(made._at_once([(made.packages[0], each) for each in documents(*range(30))])) < 10
        assert answered_many(made, *range(30)) == [{"good": ["GOOD"]}] * 30
        assert made.replaced == 0


class Asked:
    """What an evaluator talks to, with one request for it."""

    def __init__(self, *requests: bytes) -> None:
        self.requests, self.answers = list(requests), list[bytes]()

    def receive_bytes(self) -> bytes:
        if not self.requests:
            raise ChildEnded
        return self.requests.pop(0)

    def send_bytes(self, raw: bytes) -> None:
        self.answers += compiled.answers_of(raw)


@pytest.mark.parametrize(("takes_s", "answered"), [(0.001, 100), (0.1, 3), (0.9, 1)])
def test_an_evaluator_begins_no_further_question_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_s: float, answered: int
) -> None:
    now = [0.0]

    def answer(*_: object) -> str:
        now[0] += takes_s
        return "[]"

    monkeypatch.setattr(EmbeddedEngine, "answer", answer)
    (tmp_path / "good.rego").write_text(GOOD)
    link = Asked(compiled.request((0, each) for each in documents(*range(100))))
    with pytest.raises(ChildEnded):
        compiled.evaluate(EmbeddedEngine(compiled.read_policy((tmp_path,), {})), link, lambda: now[0])  # type: ignore[arg-type]
    assert link.answers == [b"+[]"] * answered


def test_slow_ones_together_are_asked_on_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each takes most of its time: their process answers one, and has the time of one for each."""
    monkeypatch.setattr(compiled, "TOGETHER_S", 0.0)  # of the processes that are forked from here on
    waited: list[float] = []
    receive = Child.receive_bytes
    with ExitStack() as stack:
        made = Setting(tmp_path, stack).evaluator()

        def noted(self: Child, timeout_s: float, *given: Any) -> bytes:
            waited.append(timeout_s)
            return receive(self, timeout_s, *given)

        monkeypatch.setattr(Child, "receive_bytes", noted)
        monkeypatch.setattr(made, "_one", None)
        assert answered_many(made, *range(30)) == [{"good": ["GOOD"]}] * 30
        assert (len(waited), made.replaced) == (30, 0)
        assert min(waited) > LIMITS.decision_ms / 1000  # an answer that was begun late is awaited
