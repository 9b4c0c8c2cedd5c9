"""Chooses the alternative of each probe before anything is compiled: the first that is alive.

A counting program is attached for each program of an alternative, the agent runs the probe's canary, and the counters
tell. Attached is not alive: stock 5.10 accepts LSM programs and never runs them, and on 6.1 and 6.12 one sysctl
silences every fentry, LSM and entry kprobe at once.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import KernelError
from ..probe import Program
from . import attach, bpf
from .counting import counting

ALIVE, UNPROVEN = "alive", "attached; there is no canary that could prove it alive"
NOT_ALLOWED = "makes every system call slower; allow it with agent.allow_syscall_tracepoints"
NOT_NEEDED = "not needed"
SILENT = "attached, but its canary never arrived"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One alternative of one probe."""

    probe: str
    """`<plugin>.<probe>`"""
    name: str
    programs: tuple[Program, ...]
    every_syscall: bool
    has_canary: bool


@dataclass(slots=True)
class Choice:
    """What came of one probe."""

    chosen: Candidate | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    """For each alternative why it was taken or not."""


def choose(
    candidates: Mapping[str, tuple[Candidate, ...]],
    excluded: Mapping[tuple[str, str], str],
    allow_every_syscall: bool,
    places: attach.Places,
    run_canaries: Callable[[list[str]], None],
) -> dict[str, Choice]:
    """Choose for each probe. `excluded` has reasons by (probe, alternative) from an earlier attempt that failed."""
    choices = {probe: Choice() for probe in candidates}
    rounds = max((len(each) for each in candidates.values()), default=0)
    for turn in range(rounds):
        trials: list[_Trial] = []
        for probe, alternatives in candidates.items():
            choice = choices[probe]
            if turn >= len(alternatives):
                continue
            candidate = alternatives[turn]
            if choice.chosen is not None:
                choice.reasons[candidate.name] = NOT_NEEDED
            elif (reason := excluded.get((probe, candidate.name))) is not None:
                choice.reasons[candidate.name] = reason
            elif candidate.every_syscall and not allow_every_syscall:
                choice.reasons[candidate.name] = NOT_ALLOWED
            else:
                trials.append(_Trial(candidate, choice))
        _run(trials, places, run_canaries)
    return choices


@dataclass(slots=True)
class _Trial:
    candidate: Candidate
    choice: Choice
    descriptors: list[int] = field(default_factory=list)
    first: int = 0
    """Index of the counter of its first program."""
    absent: list[str] = field(default_factory=list)
    """Targets of optional programs that this kernel does not have."""


def _run(trials: Iterable[_Trial], places: attach.Places, run_canaries: Callable[[list[str]], None]) -> None:
    trials = list(trials)
    total = sum(len(trial.candidate.programs) for trial in trials)
    if not total:
        return
    counters = bpf.map_create(bpf.MapType.ARRAY, 4, 8, total, "krie_preflight")
    try:
        index = 0
        attached: list[_Trial] = []
        for trial in trials:
            trial.first = index
            try:
                _attach(trial, counters, places)
                attached.append(trial)
            except KernelError as error:
                trial.choice.reasons[trial.candidate.name] = str(error)
            index = trial.first + len(trial.candidate.programs)
        provable = [trial.candidate.probe for trial in attached if trial.candidate.has_canary]
        if provable:
            run_canaries(provable)
        for trial in attached:
            _judge(trial, counters)
    finally:
        for trial in trials:
            for descriptor in trial.descriptors:
                os.close(descriptor)
        os.close(counters)


def _attach(trial: _Trial, counters: int, places: attach.Places) -> None:
    """Attach all programs but the optional ones that find no function. Raises `KernelError`."""
    kept: list[Program] = []
    for program in trial.candidate.programs:
        try:
            descriptor = attach.load(program, counting(program.attach, counters, trial.first + len(kept)), places)
            trial.descriptors.append(descriptor)
            trial.descriptors += attach.attach(program, descriptor, places)
        except KernelError as error:
            if not program.optional or error.errno != errno.ENOENT:
                raise
            trial.absent.append(program.target)
            continue
        kept.append(program)
    if not kept:
        raise KernelError("attaching", errno.ENOENT, f"this kernel has none of {', '.join(trial.absent)}")
    trial.candidate = replace(trial.candidate, programs=tuple(kept))


def _judge(trial: _Trial, counters: int) -> None:
    candidate = trial.candidate
    silent = [
        program
        for offset, program in enumerate(candidate.programs)
        if program.proven and not any(bpf.lookup(counters, struct.pack("=I", trial.first + offset), 8) or b"")
    ]
    without = f"; this kernel has no {', '.join(trial.absent)}" if trial.absent else ""
    if not candidate.has_canary:
        trial.choice.reasons[candidate.name] = f"{UNPROVEN}{without}"
        trial.choice.chosen = candidate
    elif silent:
        where = ", ".join(f"{each.attach} {each.target}".strip() for each in silent)
        trial.choice.reasons[candidate.name] = f"{SILENT}: {where}"
    else:
        trial.choice.reasons[candidate.name] = f"{ALIVE}{without}"
        trial.choice.chosen = candidate
