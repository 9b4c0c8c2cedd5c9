"""Compiles a policy and decides by it, in processes of their own: nothing that a policy does ends or blocks the agent.

One process compiles and tries it, and then forks the process that decides; where that one does not answer in time or
dies, another takes over within milliseconds. See `krie.tier.evaluator` for the agent's end.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..child import Link, first_to_end, limit_memory, limit_time, memory_unlimited
from ..config import PolicyConfig
from ..errors import ConfigError, KernelError, KrieError, PolicyError, UntrustedFileError
from ..events.event import EventType, EventTypes
from ..events.wire import Json
from ..exhaustion import exhausted
from ..fork_server import serve_forks
from ..policy.bundle_file import BundleFile, read_bundle_file, sources_of_bundle
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Package, Partly
from ..policy.opa_check import ask_opa
from ..policy.snapshot import read_unchanged
from ..policy.sources import PolicySources, read_sources
from ..trust import read_trusted
from .ability import Ways, cannot, sent_kinds
from .domain import Numbers
from .placement import Tiers, find_tiers

_QUESTION, _ANSWER = struct.Struct("=II"), struct.Struct("=I")
_LONGEST_ANSWER, _LONGEST_ANSWERS = 1 << 20, 4 << 20
TOGETHER_S = 0.25
"""After so long no further question of a request is begun: whoever asked waits for this and one decision at most."""
ANSWERED, PARTLY, FAILED = b"+", b"~", b"-"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be compiled, and for what."""

    limits: PolicyConfig
    folders: tuple[Path, ...] = ()
    data: Mapping[str, Json] = field(default_factory=dict)
    """What the configuration adds to the folders' data."""
    bundle: BundleFile | None = None
    """Decides instead of all folders."""
    sources: PolicySources | None = None
    """What was read before: nothing is read again. Without `ways` it is not tried and gets no tables."""
    ways: Ways = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)

    @property
    def again(self) -> bool:
        """Whether it is the policy that decides already, and waits for this."""
        return self.sources is not None and not self.ways


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the agent needs to know of a compiled policy."""

    sources: PolicySources
    packages: tuple[Package, ...]
    tiers: Tiers
    numbers: Numbers
    unchecked: tuple[str, ...] = ()
    """Why OPA's checker could not look at it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is none."""

    text: str
    place: str = ""
    untrusted: bool = False
    exhausted: int = 0
    """The errno of what was used up; then nothing follows for the policy."""

    def error(self) -> KrieError:
        """As it was raised."""
        if self.exhausted:
            return KernelError(self.text, self.exhausted)
        if self.place:
            return (UntrustedFileError if self.untrusted else ConfigError)(self.place, self.text)
        headline, _, details = self.text.partition("\n")
        return PolicyError(headline, details)


def compile_and_serve(types: EventTypes, link: Link) -> None:
    """The child: take a `Job`, answer `Compiled` or `Failure`, then fork evaluators of it. `types`: all there are."""
    os.environ["RUST_LIB_BACKTRACE"] = "0"  # the engine's first error would else look symbols up, for 0.2 s and more
    job: Job = link.receive()
    limit_memory(job.limits.memory_mib)
    limit_time(job.limits.load_s)
    try:
        # What decides may not end before whoever uses up all memory. Its own limit is that above.
        with nullcontext() if job.again else first_to_end():
            engine, answer = _compiled(job, types)
    except (KrieError, OSError) as error:
        link.send(_failure(error))
        return
    except (RecursionError, MemoryError) as error:
        why = "is nested too deeply" if isinstance(error, RecursionError) else "needs too much memory"
        link.send(Failure(f"the policy {why} ({type(error).__name__})"))
        return
    os.ftruncate(2, 0)
    link.send(answer)
    limit_time(None)
    serve_forks(link, partial(evaluate, engine))


def _failure(error: KrieError | OSError) -> Failure:
    """Raises the error again where nobody raised it on purpose, and nothing is used up."""
    if number := exhausted(error):
        return Failure("compiling the policy", exhausted=number)
    if isinstance(error, OSError):
        raise error
    if isinstance(error, ConfigError):
        return Failure(error.problem, error.place, isinstance(error, UntrustedFileError))
    return Failure(str(error))


def _compiled(job: Job, types: EventTypes) -> tuple[EmbeddedEngine, Compiled]:
    sources = job.sources or (
        sources_of_bundle(read_bundle_file(job.bundle), job.data)
        if job.bundle is not None
        else read_policy(job.folders, job.data)
    )
    unchecked = () if job.again else unchecked_by_opa(job.limits, sources)
    # By half of a decision's time its rules one by one are to be through, or are left out.
    engine = EmbeddedEngine(sources, note, alone_s=job.limits.decision_ms / 2000)
    note("at its rules one by one")
    _ = engine.alone  # made here rather than in the time of a decision
    if job.again:
        return engine, Compiled(sources, engine.packages, Tiers(), Numbers())
    attempt(engine, types)
    note("at the kernel's tables")
    kinds = sent_kinds(job.ways, types)
    tiers = find_tiers(engine, kinds, job.numbers, partial(cannot, job.ways))
    return engine, Compiled(sources, engine.packages, tiers, job.numbers, unchecked)


def unchecked_by_opa(limits: PolicyConfig, sources: PolicySources) -> tuple[str, ...]:
    """Why OPA's checker, where the configuration wants it, could not look at a policy. Raises `PolicyError`."""
    if not limits.opa:
        return ()
    with memory_unlimited():  # it has a time-out of its own, and reserves more than it uses
        asked = ask_opa(limits.opa, sources)
    return (f"policy.opa: OPA's checker was {asked}",) if asked.why else ()


def read_policy(folders: tuple[Path, ...], data: Mapping[str, Json]) -> PolicySources:
    """Read everything that decides. Raises `PolicyError`, `ConfigError`, `UntrustedFileError`."""
    return read_unchanged(folders, lambda: read_sources(folders, data, lambda file: read_trusted(Path(str(file)))))


def attempt(engine: EmbeddedEngine, types: EventTypes) -> None:
    """Decide an event of each kind that rules concern: what takes too long, or ends its process, does so here."""
    for each in types:
        document = json.dumps(sample(each))
        for package in engine.packages:
            if package.concerns(each.name):
                note(f"at {package.name} for an event of {each.name}")
                engine.evaluate([package], document)


def sample(event_type: EventType) -> dict[str, Json]:
    """A document of one kind, in which everything is 0, false or empty, as far as programs know it."""
    event = event_type.event(*event_type.layout.values(bytes(event_type.layout.size)))
    return {
        "event": {"kind": event_type.name, **event_type.json(event)},
        "process": {"tgid": 1, "uid": 0, "euid": 0, "gid": 0, "comm": "", "exe": "", "exe_known": True, "program": ""},
        "host": {},
        "health": {},
    }


def note(what: str) -> None:
    """Leave word of what this process is about to do, instead of what it said before: see `Child.end`."""
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    os.write(2, f"{what}\n".encode(errors="backslashreplace"))


def request(questions: Iterable[tuple[int, str]]) -> bytes:
    """What an evaluator is asked: packages by their place among all, each with an input."""
    encoded = ((package, document.encode()) for package, document in questions)
    return b"".join(_QUESTION.pack(package, len(document)) + document for package, document in encoded)


def answers_of(raw: bytes) -> list[bytes]:
    """What it says: `ANSWERED`, `PARTLY`, `FAILED` with a text; for the first ones if all together are long or slow."""
    found, at = [], 0
    while at < len(raw):
        (length,) = _ANSWER.unpack_from(raw, at)
        at += _ANSWER.size + length
        found.append(raw[at - length : at])
    return found


def evaluate(engine: EmbeddedEngine, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
    """The child that decides: answers requests until the agent has gone; of each at least the first question."""
    while True:
        asked, at = link.receive_bytes(), 0
        answers, begun = bytearray(), clock()
        while at < len(asked) and (not answers or (len(answers) < _LONGEST_ANSWERS and clock() - begun < TOGETHER_S)):
            package, length = _QUESTION.unpack_from(asked, at)
            at += _QUESTION.size + length
            answer = _answer(engine, engine.packages[package], asked[at - length : at].decode())
            answers += _ANSWER.pack(len(answer)) + answer
        link.send_bytes(bytes(answers))


def _answer(engine: EmbeddedEngine, package: Package, document: str) -> bytes:
    try:
        answer = engine.decided(package, document)
    except PolicyError as error:
        return FAILED + str(error).encode(errors="backslashreplace")
    if isinstance(answer, Partly):
        return PARTLY + json.dumps([[each.id for each in answer.fired], answer.errors]).encode()
    if len(answer) > _LONGEST_ANSWER:
        return FAILED + b"`rules` is larger than 1 MiB"
    return ANSWERED + answer.encode()
