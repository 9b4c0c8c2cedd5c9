"""Processes that decide recorded events, one a core. Nothing that a policy does ends or blocks whoever asks them."""

from __future__ import annotations

import mmap
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..child import Child, ChildEnded, Link, limit_memory
from ..config import PolicyConfig
from ..decision import Action
from ..errors import PolicyError
from ..events.given import Values
from ..fork_server import ForkServer
from ..policy.embedded import EmbeddedEngine
from ..policy.policy import Policy
from ..policy.sources import PolicySources
from .compared import SIDES, UNKNOWN_VALUES, Comparison, Tally
from .journal_reader import MOST_LINE, Piece
from .recorded import Needs, Schemas, Unreadable, object_of

MOST_FAILURES = 20
"""Events that end the process which decides them, or that it never answers, before replay gives up."""
_MARK = struct.Struct("=QQ")
_TOLD = b'"values":{'
_LOOK_S = 0.1
_SLOW_S = 300.0
_MOST_WAITING = 64 << 20
_MOST_TOLD = 16
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to decide."""

    piece: Piece
    values: tuple[tuple[str, str], ...]
    failed: dict[int, str]
    last: tuple[tuple[int, int, bytes], ...] = ()
    """Lines that waited for values, instead of a piece."""


@dataclass(slots=True)
class _Worker:
    child: Child
    mark: mmap.mmap
    number: int = -1
    """Of its task; -1: it has none."""
    task: Task | None = None
    known: int = 0
    """How many of the values it was told."""
    seen: tuple[int, int] = (0, 0)
    since: float = 0.0
    used_s: float = 0.0


@dataclass(slots=True)
class Pool:
    """Decides pieces on all cores, and gives what came of them in their order. Raises `PolicyError`."""

    old: PolicySources
    new: PolicySources
    limits: PolicyConfig
    schemas: Schemas
    """What events of each kind have."""
    jobs: int
    _marks: list[mmap.mmap] = field(default_factory=list)
    _servers: list[ForkServer] = field(default_factory=list)
    _workers: list[_Worker] = field(default_factory=list)
    _values: Values = field(default_factory=Values)
    _told: list[tuple[str, str]] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Fork all of them; to be called before this process has threads."""
        for _ in range(self.jobs):
            mark = mmap.mmap(-1, _MARK.size)
            server = ForkServer(partial(self._serve, mark))
            self._marks.append(mark)
            self._servers.append(server)
            self._workers.append(_Worker(server.fork(), mark))

    def close(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.child.end(0.0)
        for server in self._servers:
            server.close()

    def run(self, pieces: Iterator[Piece], place: Callable[[int, int], str]) -> Tally:
        """Decide all of them. `place`: how messages call a line of a file."""
        tally = Tally()
        self._run((self._task(piece) for piece in pieces if not _skipped(tally, piece)), tally, place)
        waiting, tally.waiting = tally.waiting, []
        if waiting:
            self._run(iter([self._waited(waiting)]), tally, place)
        return tally

    def _run(self, tasks: Iterator[Task], tally: Tally, place: Callable[[int, int], str]) -> None:
        done: dict[int, Tally] = {}
        given = taken = 0
        waiting_bytes = 0
        upcoming = next(tasks, None)
        while upcoming is not None or taken < given:
            for number, worker in enumerate(self._workers):
                if upcoming is None or given - taken >= 4 * self.jobs:
                    break
                if worker.number < 0:
                    worker.number, worker.task = given, upcoming
                    self._give(number)
                    given += 1
                    upcoming = next(tasks, None)
            for number in self._ready():
                found = self._answer(number, place)
                if found is not None:
                    done[self._workers[number].number] = found
                    self._workers[number].number = -1
            while taken in done:
                found = done.pop(taken)
                for each in found.waiting:
                    waiting_bytes += len(each[2])
                    if waiting_bytes > _MOST_WAITING:
                        tally.left_out(UNKNOWN_VALUES, each[0], each[1])
                    else:
                        tally.waiting.append(each)
                tally.add(found)
                taken += 1

    def _task(self, piece: Piece) -> Task:
        self._learn(piece.text)
        return Task(piece, (), {})

    def _waited(self, lines: list[tuple[int, int, bytes]]) -> Task:
        """Lines that waited, with those of the values that they name."""
        named: dict[str, str] = {}
        for _, _, text in lines:
            with suppress(Unreadable):
                given = object_of(text).get("given")
                for digest in given.values() if isinstance(given, dict) else ():
                    if (value := self._values.get(digest)) is not None:
                        named[digest] = value
        return Task(Piece(0, 0, b""), tuple(named.items()), {}, tuple(lines))

    def _learn(self, text: bytes) -> None:
        at = text.find(_TOLD)
        while at >= 0:
            start, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
            end = len(text) if end < 0 else end
            if end - start <= MOST_LINE:
                with suppress(Unreadable):
                    self._told += self._values.learn(object_of(text[start:end]).get("values")).items()
            at = text.find(_TOLD, end)

    def _give(self, number: int) -> None:
        worker = self._workers[number]
        task = worker.task
        assert task is not None
        values = (*self._told[worker.known :], *task.values)
        worker.known = len(self._told)
        worker.seen, worker.since = _MARK.unpack(worker.mark), time.monotonic()
        worker.used_s = _used_s(worker.child.tgid)
        with suppress(ChildEnded, TimeoutError):  # told when its answer is waited for
            worker.child.send(Task(task.piece, values, task.failed, task.last), _SLOW_S)
        if min(each.known for each in self._workers) > _MOST_TOLD:
            self._forget()

    def _forget(self) -> None:
        """What all processes were told need not be kept to be told."""
        least = min(each.known for each in self._workers)
        del self._told[:least]
        for each in self._workers:
            each.known -= least

    def _ready(self) -> list[int]:
        busy = {each.child.socket: at for at, each in enumerate(self._workers) if each.number >= 0}
        if not busy:
            return []
        ready, _, _ = select.select(list(busy), [], [], _LOOK_S)
        now = time.monotonic()
        hanging = [at for each, at in busy.items() if each not in ready and self._hangs(self._workers[at], now)]
        return [*(busy[each] for each in ready), *hanging]

    def _hangs(self, worker: _Worker, now: float) -> bool:
        mark = _MARK.unpack(worker.mark)
        if mark != worker.seen:
            worker.seen, worker.since, worker.used_s = mark, now, _used_s(worker.child.tgid)
            return False
        most_s = self.limits.decision_ms / 1000
        if now - worker.since < most_s or not mark[1]:
            return False
        return _used_s(worker.child.tgid) - worker.used_s > most_s or now - worker.since > _SLOW_S

    def _answer(self, number: int, place: Callable[[int, int], str]) -> Tally | None:
        """What came of a worker's task; None: it failed, and another process has it again."""
        worker = self._workers[number]
        why = f"gave no answer within {self.limits.decision_ms} ms (policy.decision_ms)"
        try:
            if worker.child.socket in select.select([worker.child.socket], [], [], 0)[0]:
                found: Any = worker.child.receive(_SLOW_S)
                if isinstance(found, Tally):
                    return found
                raise PolicyError(str(found))
            worker.child.end(0.0)
        except (ChildEnded, TimeoutError):
            why = f"the process that decided {worker.child.end(0.2)}"
        line, side = _MARK.unpack(worker.mark)
        task = worker.task
        assert task is not None
        file = task.last[line][0] if task.last else task.piece.file
        at = place(file, task.last[line][1] if task.last else line)
        if not side:
            raise PolicyError(f"{at}: the process that reads the journal failed: {why}")
        self._failures.append(f"{at}: {SIDES[side]}: {why}")
        if len(self._failures) >= MOST_FAILURES:
            raise PolicyError(
                f"{len(self._failures)} of the recorded events cannot be decided; the first: {self._failures[0]}"
            )
        failed = {**task.failed, line: f"{SIDES[side]}: {why}"}
        worker.task = Task(
            task.piece, tuple(self._values.items()), failed, task.last
        )  # the new process was told nothing
        worker.child, worker.known = self._servers[number].fork(), len(self._told)
        self._give(number)
        return None

    def _serve(self, mark: mmap.mmap, link: Link) -> None:
        os.environ["RUST_LIB_BACKTRACE"] = "0"
        limit_memory(2 * self.limits.memory_mib + 256)
        on_error = Action[self.limits.on_error.upper()]
        both = (self.old,) if self.old.decides_as(self.new) else (self.old, self.new)
        engines = [EmbeddedEngine(each) for each in both]
        policies = [Policy(engine, on_error=on_error, memo=self.limits.memo) for engine in engines]
        old, new = policies[0], policies[-1]
        packages = [package for engine in engines for package in engine.packages]
        needs = Needs(packages, self.schemas)
        comparison = Comparison(old, new, needs, lambda line, side: _MARK.pack_into(mark, 0, line, side))
        while True:
            task: Task = link.receive()
            comparison.learn(task.values)
            if not task.last:
                link.send(comparison.lines(task.piece, task.failed))
                continue
            tally = Tally()
            for at, (file, number, text) in enumerate(task.last):
                comparison.line(tally, at, (file, number), text, task.failed.get(at, ""), last=True)
            link.send(tally)


def _skipped(tally: Tally, piece: Piece) -> bool:
    if piece.skipped:
        tally.lines += 1
        tally.left_out(f"no line of a journal: {piece.skipped}", piece.file, piece.line)
    return bool(piece.skipped)


def _used_s(tgid: int) -> float:
    """CPU time that a process has used, s."""
    try:
        fields = Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
