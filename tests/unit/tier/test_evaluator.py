"""Policies that crash, hang or eat memory, and processes that are killed or stopped: each evaluation ends in time."""

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from krie.child import Child, ChildEnded, Link, forked
from krie.config import PolicyConfig
from krie.decision import Action
from krie.errors import ConfigError, DecisionError, KernelError, PolicyError
from krie.events.event import EventTypes
from krie.fork_server import ForkServer, forked_by
from krie.policy.debts import Debts
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import fired_rules
from krie.policy.policy import Policy
from krie.testing.patience import PATIENCE_S
from krie.tier import compiled
from krie.tier.compiled import Job, compile_and_serve
from krie.tier.evaluator import Compiling, Evaluator

from ...policy.test_classify import Sample

TYPES = EventTypes((Sample,))
LIMITS = PolicyConfig(decision_ms=1000, load_s=6, memory_mib=128)
GOOD = """package krie.good

rules contains {"id": "GOOD", "action": "log"} if input.event.kind == "sample.seen"
"""
BAD = """package krie.bad

%s

rules contains {"id": "BAD", "action": "kill"} if {
	input.event.kind == "sample.seen"
	input.process.uid == %d
	%s
}
"""
RECURSION = "f(x) := f(x)", "f(1)"
MUTUAL = "f(x) := g(x)\n\ng(x) := f(x)", "f(1)"
LOOP = "", "count([1 | some i in numbers.range(1, 9000); some j in numbers.range(1, 9000); i == j + 5000]) == 5"
MEMORY = "", "bits.lsh(1, 4000000000) > 5"
ROWS = "", "count(numbers.range(1, 100000000)) == 5"
BRACKETS = "", f"x := {'[' * 30}1{']' * 30}"
CRASHES = {"memory": MEMORY, "rows": ROWS}
NEVER, ALWAYS = 5, 0  # the sample that a policy is tried with has uid 0


class Setting:
    def __init__(self, folder: Path, stack: ExitStack, limits: PolicyConfig = LIMITS) -> None:
        self.folder, self.limits, self.stack = folder, limits, stack
        self.server = ForkServer(partial(compile_and_serve, TYPES))
        stack.callback(self.server.close)
        (folder / "good.rego").write_text(GOOD)
        self.meanwhile = 0

    def bad(self, what: tuple[str, str], uid: int) -> None:
        helper, condition = what
        (self.folder / "bad.rego").write_text(BAD % (helper, uid, condition))

    def evaluator(self) -> Evaluator:
        job = Job(self.limits, (self.folder,))
        compiled, keeper = Compiling(self.server.fork, job).wait()
        made = Evaluator(compiled, keeper, self.server.fork, self.limits, self._count)
        self.stack.callback(made.close)
        return made

    def _count(self) -> None:
        self.meanwhile += 1


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with ExitStack() as stack:
        yield Setting(tmp_path, stack)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing is left, and no zombie


def asked(evaluator: Evaluator, uid: int = 1) -> dict[str, object]:
    """What each package answers: ids, or why there are none."""
    document = json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}})
    answers = evaluator.evaluate(evaluator.packages, document)
    return {
        package.name.rpartition(".")[2]: answer if isinstance(answer, str) else [each.id for each in answer]
        for package, answer in zip(evaluator.packages, answers, strict=True)
    }


def gone(tgid: int) -> bool:
    try:
        return Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(test: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_answers_what_the_engine_answers(setting: Setting) -> None:
    setting.bad(("", 'to_number("x") == 1'), NEVER)
    made = setting.evaluator()
    engine = EmbeddedEngine(made._sources)
    for uid in (1, NEVER):
        document = json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}})
        assert made.evaluate(made.packages, document) == engine.evaluate(engine.packages, document)
    assert (made.revision, made.rules, made.packages) == (engine.revision, engine.rules, engine.packages)
    assert made.replaced == 0


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
    with pytest.raises(PolicyError, match=message):
        setting.evaluator()
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_an_evaluator_that_somebody_ends_or_stops_is_replaced_and_the_event_decided(
    setting: Setting, number: signal.Signals
) -> None:
    made = setting.evaluator()
    before = made.worker
    assert before is not None
    os.kill(before, number)
    assert asked(made) == {"good": ["GOOD"]}
    assert made.worker not in (None, before)
    assert (made.replaced, gone(before)) == (1, True)
    assert "replaced" in made.failures[0]


def documents(*uids: int) -> list[str]:
    return [json.dumps({"event": {"kind": "sample.seen"}, "process": {"uid": uid}}) for uid in uids]


def answered_many(made: Evaluator, *uids: int) -> list[dict[str, object]]:
    """The same as `asked`, of several at once."""
    packages = tuple(made.packages)
    names = [each.name.rpartition(".")[2] for each in packages]
    return [
        {
            name: answer if isinstance(answer, str) else [each.id for each in answer]
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_that_a_service_manager_sends_to_all_end_none(setting: Setting, number: signal.Signals) -> None:
    made = setting.evaluator()
    before = made.worker
    for tgid in (made.worker, made.keeper, setting.server.tgid):
        assert tgid is not None
        os.kill(tgid, number)
    assert asked(made) == {"good": ["GOOD"]}
    assert made.worker == before


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("server", [False, True])
def test_whoever_forks_evaluators_is_replaced_too(setting: Setting, stop: bool, server: bool) -> None:
    made = setting.evaluator()
    revision = made.revision
    victims = [made.worker, made.keeper, *([setting.server.tgid] if server and not stop else [])]
    (setting.folder / "good.rego").write_text("package krie.good\n\nthis is no policy")  # nothing is read again
    for each in victims:
        assert each is not None
        os.kill(each, signal.SIGSTOP if stop and each == made.keeper else signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while asked(made) != {"good": ["GOOD"]}:
        made.debts = Debts(time.monotonic)
        assert time.monotonic() < end
    assert made.revision == revision
    assert all(gone(each) for each in victims if each is not None)


def test_memory_is_bounded(setting: Setting) -> None:
    setting.bad(MEMORY, NEVER)
    made = setting.evaluator()
    keeper = int(Path(f"/proc/{made.keeper}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    limits = Path(f"/proc/{made.worker}/limits").read_text().splitlines()
    (most,) = (int(line.split()[3]) for line in limits if line.startswith("Max address space"))
    assert most < keeper + (LIMITS.memory_mib << 20) + (64 << 20)
    (core,) = (line.split()[4] for line in limits if line.startswith("Max core file size"))
    assert core == "0"


def test_processes_end_with_whoever_started_them(tmp_path: Path) -> None:
    """As with an agent that is killed, while a policy blocks too."""

    def agent(link: Link) -> None:
        with ExitStack() as stack:
            own = Setting(tmp_path, stack, LIMITS.model_copy(update={"decision_ms": 60000}))
            own.bad(LOOP, NEVER)
            made = own.evaluator()
            link.send((made.worker, made.keeper, own.server.tgid))
            asked(made, NEVER)

    child = forked(agent)
    tgids = child.receive(PATIENCE_S)
    os.kill(child.tgid, signal.SIGKILL)
    child.end()
    wait_for(lambda: all(gone(each) for each in tgids))


def test_a_file_that_is_wrong_is_told_as_before(setting: Setting) -> None:
    (setting.folder / "good.rego").chmod(0o666)
    with pytest.raises(ConfigError, match="good.rego: can be changed by other users"):
        setting.evaluator()
    (setting.folder / "good.rego").chmod(0o644)
    (setting.folder / "deep.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(PolicyError, match="deep.json:1:.*: is nested deeper than 100 levels"):
        setting.evaluator()


def test_nothing_of_the_parent_is_open_in_a_child(setting: Setting) -> None:
    read, write = os.pipe()
    made = setting.evaluator()
    asked(made)
    for tgid in (made.worker, made.keeper):
        assert len(os.listdir(f"/proc/{tgid}/fd")) == 4  # standard ones and its socket
    os.close(read)
    os.close(write)


def test_a_child_says_how_it_ended() -> None:
    def crash(link: Link) -> None:
        link.receive()
        os.write(2, b"a last word\n")
        os.abort()

    child = forked(crash)
    child.send(1)
    with pytest.raises(ChildEnded):
        child.receive(PATIENCE_S)
    assert child.end() == child.end() == "was ended by SIGABRT (a last word)"


def test_a_child_that_raises_says_what() -> None:
    child = forked(lambda _: print(1 // 0))
    with pytest.raises(ChildEnded):
        child.receive(PATIENCE_S)
    assert "exited with status 1" in child.end()
    assert "ZeroDivisionError" in child.end()


def test_large_values_and_slow_readers() -> None:
    def echo(link: Link) -> None:
        while True:
            link.send(link.receive())

    child: Child = forked(echo)
    for size in (0, 1, 1 << 20):
        child.send("x" * size, PATIENCE_S)
        assert child.receive(PATIENCE_S) == "x" * size
    with pytest.raises(TimeoutError):
        child.receive(0.01)
    os.kill(child.tgid, signal.SIGSTOP)
    wait_for(lambda: child.stopped)
    with pytest.raises(TimeoutError):
        child.send("x" * (1 << 23), 0.05)
    child.end(0.0)


def test_what_failed_rests_and_what_fails_too_often_is_asked_less() -> None:
    now = [100.0]
    debts = Debts(lambda: now[0])
    assert debts.none
    debts.failed("p", "k", "one", 0.5, "too slow")
    assert "too slow" in debts.rests("p", "k", "one")
    assert debts.rests("p", "k", "two") == debts.rests("q", "k", "one") == ""
    now[0] += 5.1
    assert debts.rests("p", "k", "one") == ""
    for number in range(4):
        assert debts.rests("p", "k", str(number)) == ""
        debts.failed("p", "k", str(number), 0.6, "too slow")
    assert "not asked about k for" in debts.rests("p", "k", "another")
    assert debts.rests("p", "other", "another") == ""
    asked = 0
    for _ in range(1000):
        now[0] += 0.1
        if not debts.rests("p", "k", f"at {now[0]}"):
            asked += 1
            debts.failed("p", "k", f"at {now[0]}", 0.6, "too slow")
    assert 10 <= asked <= 20  # a tenth of 100 s
    now[0] += 3600
    assert debts.rests("p", "k", "another") == ""
    for number in range(1000):
        debts.failed("p", "k", f"{number}", 0.0, "")
    assert len(debts._inputs) == 256


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMIN + 1, signal.SIGRTMAX])
def test_a_signal_without_a_name(setting: Setting, number: int) -> None:
    made = setting.evaluator()
    assert made.worker is not None
    os.kill(made.worker, number)
    assert asked(made) == {"good": ["GOOD"]}
    assert "was ended by " in made.failures[0]


def test_no_descriptors_are_left(setting: Setting) -> None:
    made = setting.evaluator()
    assert made.worker is not None
    os.kill(made.worker, signal.SIGKILL)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4, before[1]))
    try:
        assert "nothing can decide: starting an evaluator of policies: EMFILE" in str(asked(made)["good"])
        with pytest.raises(KernelError):
            setting.server.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    made.debts = Debts(lambda: 0.0)
    assert asked(made) == {"good": ["GOOD"]}


def test_a_stopped_server_does_not_hold_up(setting: Setting) -> None:
    os.kill(setting.server.tgid, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{setting.server.tgid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    started = time.monotonic()
    setting.server.fork().end(0.0)
    assert time.monotonic() - started < 2


def test_a_late_answer_is_not_taken_for_the_next_one(setting: Setting) -> None:
    os.kill(setting.server.tgid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        forked_by(setting.server._server, 0.05)
    os.kill(setting.server.tgid, signal.SIGCONT)
    with pytest.raises(ChildEnded):
        forked_by(setting.server._server)
    setting.server.fork().end(0.0)
    for _ in range(200):  # what the late answer told of
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.001)


@pytest.mark.parametrize("answer", ["[" * 5000 + "]" * 5000, "[" + "1" * 5000 + "]", "[", '[{"id": ' + "[" * 600])
def test_answers_that_python_cannot_read(answer: str) -> None:
    with pytest.raises(DecisionError):
        fired_rules(answer)
