"""Takes the alternative of each probe: the first one that can be attached, which then stays attached.

Nothing is attached on trial, since closing a link waits for the kernel's grace periods (a trampoline: about 0.1 s).
What can be known without attaching is asked first; the verifier and the attach call itself tell the rest. Attached is
not alive: the agent runs the probe's canary on the program that stays, and only where that is silent does the probe
fall back to its next alternative.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ..errors import KernelError
from ..kernel.program import AttachType, Program

ALIVE, UNPROVEN = "alive", "attached; there is no canary that could prove it alive"
NOT_ALLOWED = "makes every system call slower; allow it with agent.allow_syscall_tracepoints"
NOT_NEEDED = "not needed"
SILENT = "attached, but its canary never arrived"

Hold = Callable[[Program], list[int]]
"""Loads and attaches a program; returns the descriptors that hold it, its own first. Raises `KernelError`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One alternative of one probe."""

    probe: str
    """`<plugin>.<probe>`"""
    name: str
    programs: tuple[Program, ...]
    every_syscall: bool
    has_canary: bool


@dataclass(frozen=True, slots=True)
class Held:
    """One attached program."""

    program: Program
    descriptors: tuple[int, ...]
    """Its own, and then what attaches it."""


@dataclass(slots=True)
class _Search:
    left: Iterator[Option]
    """Alternatives that were not looked at yet."""
    all: tuple[Option, ...]
    chosen: Option | None = None
    reasons: dict[str, str] = field(default_factory=dict)


class Alternatives:
    """The alternatives of a set of probes, and which of them are attached."""

    def __init__(
        self,
        options: Mapping[str, tuple[Option, ...]],
        hold: Hold,
        *,
        allow_every_syscall: bool,
        refused: Mapping[AttachType, str],
        release: Callable[[Held], None],
    ) -> None:
        """Attach nothing yet. `refused`: attach types that cannot work here, and why; `release` detaches what
        belongs to an alternative that could not be attached as a whole."""
        self._hold, self._release = hold, release
        self._allow_every_syscall, self._refused = allow_every_syscall, refused
        self._searches = {probe: _Search(iter(each), each) for probe, each in options.items()}

    def take(self) -> list[Held]:
        """Attach the first alternative of each probe that works; returns what that attached."""
        return [held for search in self._searches.values() for held in self._next(search)]

    def fall_back(self, silent: Mapping[str, str]) -> list[Held]:
        """Give up the attached alternatives of these probes, for the reasons given, and attach their next ones.

        Returns what that attached. What is not among `attached` any more is the caller's to close.
        """
        before = frozenset(map(_place, self.attached))
        searches = []
        for probe, why in silent.items():
            search = self._searches[probe]
            if search.chosen is not None:
                search.reasons[search.chosen.name] = why
                search.chosen = None
                searches.append(search)
        return [held for search in searches for held in self._next(search, before)]

    @property
    def wanted(self) -> tuple[Program, ...]:
        """What `take` attaches where nothing is in the way that is not known by now; each once."""
        found: dict[Program, Program] = {}
        for search in self._searches.values():
            first = next((each for each in search.all if not self._known_obstacle(each)), None)
            for program in first.programs if first is not None else ():
                found.setdefault(_place(program), program)
        return tuple(found.values())

    @property
    def attached(self) -> tuple[Program, ...]:
        """The programs of the alternatives in use, each once."""
        chosen = (each.chosen.programs for each in self._searches.values() if each.chosen is not None)
        return tuple(dict.fromkeys(program for programs in chosen for program in programs))

    @property
    def chosen(self) -> dict[str, str]:
        """The alternative in use, by probe."""
        return {probe: each.chosen.name for probe, each in self._searches.items() if each.chosen is not None}

    @property
    def reasons(self) -> dict[str, dict[str, str]]:
        """For each probe and alternative why it is in use or not."""
        return {
            probe: {each.name: search.reasons.get(each.name, NOT_NEEDED) for each in search.all}
            for probe, search in self._searches.items()
        }

    def _next(self, search: _Search, before: frozenset[Program] = frozenset()) -> list[Held]:
        """`before`: programs that an alternative which was given up has left attached."""
        for option in search.left:
            if why := self._known_obstacle(option):
                search.reasons[option.name] = why
                continue
            try:
                return self._attach(search, option, before)
            except KernelError as error:
                if error.exhausted:
                    raise  # it tells nothing about the kernel
                search.reasons[option.name] = str(error)
        return []

    def _known_obstacle(self, option: Option) -> str:
        if option.every_syscall and not self._allow_every_syscall:
            return NOT_ALLOWED
        return next((why for each in option.programs if (why := self._refused.get(each.attach, ""))), "")

    def _attach(self, search: _Search, option: Option, before: frozenset[Program]) -> list[Held]:
        """Attach all programs but the optional ones that find no function. Raises `KernelError`."""
        # Several probes, and several alternatives of one, may name the same program: it is attached once.
        shared = before.union(map(_place, self.attached))
        kept: list[Program] = []
        new: list[Held] = []
        absent: list[str] = []
        try:
            for program in option.programs:
                if _place(program) not in shared:
                    try:
                        new.append(Held(program, tuple(self._hold(program))))
                    except KernelError as error:
                        if not program.optional or error.errno != errno.ENOENT:
                            raise
                        absent.append(program.target)
                        continue
                kept.append(program)
            if not kept:
                raise KernelError("attaching", errno.ENOENT, f"this kernel has none of {', '.join(absent)}")
        except KernelError:
            with ExitStack() as stack:  # each of them, even if one cannot be let go
                for held in new:
                    stack.callback(self._release, held)
            raise
        without = f"; this kernel has no {', '.join(absent)}" if absent else ""
        search.reasons[option.name] = f"{ALIVE if option.has_canary else UNPROVEN}{without}"
        search.chosen = Option(option.probe, option.name, tuple(kept), option.every_syscall, option.has_canary)
        return new


def _place(program: Program) -> Program:
    """What makes two programs the same one: not their labels, which two ways of attaching one function share."""
    return replace(program, optional=False, proven=True)


def silent(programs: Iterable[Program]) -> str:
    """The reason for giving up an alternative: these programs of it did not run."""
    return f"{SILENT}: {', '.join(f'{each.attach} {each.target}'.strip() for each in programs)}"
