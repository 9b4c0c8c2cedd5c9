"""Evaluators that somebody ends or stops, and the server that forks them: they are replaced, and nothing is left."""

import errno
import os
import resource
import signal
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from krie import fork_server
from krie.child import Child, ChildEnded, Link, forked
from krie.errors import KernelError
from krie.fork_server import forked_by
from krie.testing.patience import PATIENCE_S, wait_for
from krie.tier.compiled import Job
from krie.tier.evaluator import Compiling

from .harmful import ALWAYS, LIMITS, LOOP, NEVER, Setting, asked, gone


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


def score(tgid: int | str | None) -> int:
    return int(Path(f"/proc/{tgid}/oom_score_adj").read_text())


def test_what_decides_ends_no_sooner_than_the_agent_for_want_of_memory(setting: Setting) -> None:
    """Whoever uses up all memory, again and again, would else have nothing decided."""
    made = setting.evaluator()
    for _ in range(2):
        assert {score(each) for each in (made.worker, made.keeper, setting.server.tgid)} == {score("self")}
        for each in (made.worker, made.keeper):
            assert each is not None
            os.kill(each, signal.SIGKILL)
        wait_for(lambda: asked(made) == {"good": ["GOOD"]})


def test_a_policy_that_is_tried_is_the_first_to_end(setting: Setting) -> None:
    setting.bad(LOOP, ALWAYS)
    children: list[Child] = []

    def fork() -> Child:
        children.append(setting.server.fork())
        return children[-1]

    compiling = Compiling(fork, Job(setting.limits, (setting.folder,)))
    wait_for(lambda: score(children[0].tgid) == 1000)
    compiling.cancel()


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
        assert made.debts.none  # no package is at fault
        assert time.monotonic() < end
    assert made.revision == revision
    assert all(gone(each) for each in victims if each is not None)


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


def test_nothing_of_the_parent_is_open_in_a_child(setting: Setting) -> None:
    read, write = os.pipe()
    made = setting.evaluator()
    asked(made)
    for tgid in (made.worker, made.keeper):
        assert len(os.listdir(f"/proc/{tgid}/fd")) == 4  # standard ones and its socket
    os.close(read)
    os.close(write)


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
    assert made.debts.none
    wait_for(lambda: asked(made) == {"good": ["GOOD"]})


def test_questions_wait_together_for_one_decisions_time(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are asked as soon as something decides again."""
    made = setting.evaluator()
    answer, waits = Compiling.answer, list[float]()

    def late(compiling: Compiling, timeout_s: float | None = None) -> None:
        assert timeout_s is not None
        waits.append(timeout_s)
        time.sleep(timeout_s)

    monkeypatch.setattr(Compiling, "answer", late)
    for each in (made.worker, made.keeper):
        assert each is not None
        os.kill(each, signal.SIGKILL)
    for _ in range(20):
        assert "being compiled again" in str(asked(made)["good"])
    assert waits[0] == setting.limits.decision_ms / 1000
    assert sum(waits) < 2 * waits[0]
    monkeypatch.setattr(Compiling, "answer", answer)
    wait_for(lambda: asked(made) == {"good": ["GOOD"]})
    assert made.debts.none


def test_what_cannot_be_compiled_again_is_tried_a_small_part_of_the_time(setting: Setting) -> None:
    made = setting.evaluator()
    for each in (made.worker, made.keeper):
        assert each is not None
        os.kill(each, signal.SIGKILL)
    tries: list[float] = []

    def fork() -> Child:
        time.sleep(0.1)
        tries.append(time.monotonic())
        raise KernelError("starting an evaluator of policies", errno.ENOMEM)

    made._fork = fork
    while len(tries) < 3:
        assert "nothing can decide" in str(asked(made)["good"])
    assert all(later - earlier > 1 for earlier, later in pairwise(tries))
    made._fork = setting.server.fork
    wait_for(lambda: asked(made) == {"good": ["GOOD"]})
    assert made.debts.none


def test_a_stopped_server_does_not_hold_up(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_ANSWERS_WITHIN_S", PATIENCE_S)
    os.kill(setting.server.tgid, signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{setting.server.tgid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    started = time.monotonic()
    setting.server.fork().end(0.0)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_late_answer_is_not_taken_for_the_next_one(setting: Setting) -> None:
    os.kill(setting.server.tgid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        forked_by(setting.server._server, 0.05)
    os.kill(setting.server.tgid, signal.SIGCONT)
    with pytest.raises(ChildEnded):
        forked_by(setting.server._server)
    setting.server.fork().end(0.0)

    def alone() -> bool:
        """But for the server; what the late answer told of ends by itself."""
        os.waitpid(-1, os.WNOHANG)
        tasks = Path("/proc/self/task").glob("*/children")
        return [each for task in tasks for each in task.read_text().split()] == [str(setting.server.tgid)]

    wait_for(alone)
