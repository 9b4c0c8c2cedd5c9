"""The agent's end of the processes that compile a policy and decide by it: see `krie.tier.compiled`."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..child import Child, ChildEnded
from ..config import PolicyConfig
from ..errors import DecisionError, KernelError, PolicyError
from ..exhaustion import exhausted_in
from ..fork_server import forked_by
from ..policy.debts import Debts
from ..policy.delegated import Answered
from ..policy.engine import Answer, Package, Partly, Rule, fired_rules
from ..policy.sources import PolicySources
from .compiled import ANSWERED, PARTLY, TOGETHER_S, Compiled, Failure, Job, answers_of, request

_log = logging.getLogger("krie")
_REST = 10
"""So many times as long as questions waited in vain for something that decides, nothing is tried."""
_TOGETHER = 128
"""Questions in one request: enough that handing over to the other process and back costs little beside them."""


class Compiling:
    """A policy that is being compiled."""

    def __init__(self, fork: Callable[[], Child], job: Job) -> None:
        """Start. Raises `KernelError`, `PolicyError`."""
        self._job = job
        self._end = time.monotonic() + job.limits.load_s
        self._child = fork()
        try:
            self._child.send(job, job.limits.load_s)
        except (ChildEnded, TimeoutError) as error:
            raise PolicyError(f"the process that compiles policies {self._child.end()}") from error

    def answer(self, timeout_s: float | None = None) -> tuple[Compiled, Child] | None:
        """What came of it; None: nothing yet, after `timeout_s`, which is the rest of its time where it is None.

        Raises what is wrong with the policy; then the process has ended, as it has where its time is over.
        """
        left = max(0.0, self._end - time.monotonic())
        try:
            answer = self._child.receive(left if timeout_s is None else min(left, timeout_s))
        except TimeoutError:
            if time.monotonic() < self._end:
                return None
            how = self._child.end(0.0)
            raise PolicyError(
                f"the policy could not be compiled and tried within {self._job.limits.load_s} s (policy.load_s): the "
                f"process that did {how}; look there for deeply nested brackets, large comprehensions and calls with "
                "large numbers"
            ) from None
        except ChildEnded:
            how = self._child.end()
            if (number := exhausted_in(how)) in (errno.EMFILE, errno.ENFILE):  # memory has a limit of the policy's own
                raise KernelError("compiling the policy", number) from None
            raise PolicyError(f"the policy cannot be compiled and tried: the process that did {how}; {_HINT}") from None
        if isinstance(answer, Failure):
            self._child.end()
            raise answer.error()
        return answer, self._child

    def wait(self) -> tuple[Compiled, Child]:
        """The same, as long as it may take."""
        while (answer := self.answer()) is None:
            pass
        return answer

    def cancel(self) -> None:
        """End the child, and forget its answer."""
        self._child.end(0.0)


_HINT = (
    "look there for functions that call themselves (SIGSEGV), for what needs more than policy.memory_mib (SIGABRT) "
    "and more time than policy.load_s (SIGXCPU)"
)


class Evaluator:
    """An `Engine` whose policy runs in other processes. For whatever they do, each evaluation ends in time."""

    def __init__(
        self,
        compiled: Compiled,
        keeper: Child,
        fork: Callable[[], Child],
        limits: PolicyConfig,
        meanwhile: Callable[[], object] = list,
    ) -> None:
        """`keeper` forks what decides, and `fork` makes another keeper; `meanwhile` is called while an answer is late.

        Raises `KernelError` where nothing can be forked.
        """
        self.packages: Sequence[Package] = compiled.packages
        self.revision = compiled.sources.revision
        self._places = {each.name: place for place, each in enumerate(compiled.packages)}
        self._sources, self._limits, self._meanwhile = compiled.sources, limits, meanwhile
        self._fork, self._keeper = fork, keeper
        self._compiling: Compiling | None = None
        self._worker: Child | None = None
        self._waited_s = 0.0
        """How long questions waited for another keeper: all together no longer than one decision may take."""
        self._rests_until = 0.0
        """When it is tried again, after that was in vain."""
        self.debts = Debts(time.monotonic)
        self.replaced = 0
        """Processes that had to be replaced."""
        self.failures: deque[str] = deque(maxlen=100)
        """What happened since somebody took them out."""
        with suppress(ChildEnded, TimeoutError):  # the first evaluation starts another
            self._worker = forked_by(keeper)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules of all packages."""
        return tuple(rule for package in self.packages for rule in package.rules)

    @property
    def sources(self) -> PolicySources:
        """The sources of the compiled policy."""
        return self._sources

    @property
    def worker(self) -> int | None:
        """Tgid of the process that decides."""
        return self._worker.tgid if self._worker is not None else None

    @property
    def keeper(self) -> int:
        """Tgid of the process that forks it."""
        return self._keeper.tgid

    def evaluate(self, packages: Sequence[Package], document: str) -> list[Answer]:
        """See `Engine`."""
        return [self._one(each, document) for each in packages]

    @property
    def together(self) -> int:
        """See `krie.policy.delegated.Many`."""
        return _TOGETHER

    def evaluate_many(self, asked: Sequence[tuple[tuple[Package, ...], str]]) -> list[Answered]:
        """See `krie.policy.delegated.Many`: in few requests, as long as nothing goes wrong."""
        found: list[Answered] = []
        for start in range(0, len(asked), _TOGETHER):
            some = asked[start : start + _TOGETHER]
            questions = [(each, document) for packages, document in some for each in packages]
            answers: list[Answer] = []
            while len(answers) < len(questions) and (more := self._at_once(questions[len(answers) :])):
                answers += more
            # One by one it turns out whose fault it is, and nothing else is left undecided.
            answers += [self._one(*each) for each in questions[len(answers) :]]
            rest = iter(answers)
            found += [Answered([next(rest) for _ in packages], "") for packages, _ in some]
        return found

    def _at_once(self, questions: Sequence[tuple[Package, str]]) -> list[Answer]:
        """The answers to the first ones, at least one; none where one takes longer than it may, or else is wrong."""
        worker = self._worker
        if worker is None or not self.debts.none:
            return []
        timeout_s = self._limits.decision_ms / 1000
        try:
            worker.send_bytes(request((self._places[each.name], document) for each, document in questions), timeout_s)
            # The last one that is begun has the time of a decision: slow ones together are not a failure.
            raw = worker.receive_bytes(TOGETHER_S + timeout_s, self._meanwhile)
        except (TimeoutError, ChildEnded):
            worker.end(0.0)
            self._worker = None
            self.replaced += 1
            return []
        return [_fired(package, answer) for (package, _), answer in zip(questions, answers_of(raw), strict=False)]

    def close(self) -> None:
        """End the processes."""
        for each in (self._worker, self._keeper):
            if each is not None:
                each.end()
        if self._compiling is not None:
            self._compiling.cancel()

    def _one(self, package: Package, document: str) -> Answer:
        if not self.debts.none and (why := self.debts.rests(package.name, _kind(document), document)):
            return f"{package.name}: {why}"
        asked = request([(self._places[package.name], document)])
        why, spent_s = "", 0.0
        for attempt in range(2):
            try:
                worker = self._worker or self._another()
            except (PolicyError, KernelError) as error:
                # Which is no fault of the package's: it is asked as soon as something can.
                return f"{package.name}: nothing can decide: {error}"
            timeout_s = self._limits.decision_ms / 1000
            started = time.monotonic()
            try:
                worker.send_bytes(asked, timeout_s)
                (answer,) = answers_of(worker.receive_bytes(timeout_s, self._meanwhile))
            except TimeoutError:
                innocent = worker.stopped
                why = f"gave no answer within {self._limits.decision_ms} ms (policy.decision_ms)"
                why = f"{why}; somebody had stopped the process" if innocent else why
                worker.end(0.0)
            except ChildEnded:
                innocent = True  # until it happens again: it may have been killed, and before it was asked
                why = f"the process that decided {worker.end()}"
            else:
                if attempt:
                    self._tell(f"an evaluator was replaced and its question answered: {why}")
                return _fired(package, answer)
            spent_s += time.monotonic() - started
            self._worker = None
            self.replaced += 1
            if not innocent:
                break
        self._tell(f"{package.name}: {why}")
        self.debts.failed(package.name, _kind(document), document, spent_s, why)
        return f"{package.name}: {why}"

    def _another(self) -> Child:
        """Another process that decides. Raises `PolicyError`, `KernelError`."""
        began = time.monotonic()
        if began < self._rests_until:
            raise PolicyError(f"the policy is compiled again in {self._rests_until - began:.1f} s")
        try:
            self._worker = self._forked()
        except (PolicyError, KernelError) as error:
            self._waited_s += time.monotonic() - began
            if self._compiling is None:
                self._tell(f"nothing can decide: {error}")
                self._rests_until = time.monotonic() + _REST * self._waited_s
                self._waited_s = 0.0
            raise
        self._waited_s = 0.0
        return self._worker

    def _forked(self) -> Child:
        """By the keeper, or by another one as soon as there is one. Raises as `_another`."""
        decision_s = self._limits.decision_ms / 1000
        if self._compiling is None:
            try:
                return forked_by(self._keeper, decision_s)
            except (ChildEnded, TimeoutError):
                self.replaced += 1
                self._tell(f"the process that keeps the policy {self._keeper.end(0.0)}; it is compiled again")
            self._compiling = Compiling(self._fork, Job(self._limits, sources=self._sources))
        compiling, self._compiling = self._compiling, None
        found = compiling.answer(max(0.0, decision_s - self._waited_s))
        if found is None:
            self._compiling = compiling
            raise PolicyError("the policy is being compiled again")
        self._keeper = found[1]
        try:
            return forked_by(self._keeper, decision_s)
        except (ChildEnded, TimeoutError) as error:
            raise PolicyError("the process that keeps the policy does not answer") from error

    def _tell(self, text: str) -> None:
        _log.error("policy: %s", text)
        self.failures.append(text)


def _fired(package: Package, answer: bytes) -> Answer:
    text = answer[1:].decode(errors="backslashreplace")
    if answer[:1] == PARTLY:
        names, errors = json.loads(text)
        fired = {rule.id: rule.fired for rule in package.rules}
        return Partly([fired[name] for name in names], errors).answer
    if answer[:1] != ANSWERED:
        return f"{package.name}: {text}"
    try:
        return fired_rules(text)
    except DecisionError as error:
        return f"{package.name}: {error}"


def _kind(document: str) -> str:
    """The kind of an event, as far as the rules read it."""
    return str(json.loads(document).get("event", {}).get("kind", "?"))
