"""What the agent reports about enforcement: refusals of guarded operations, attempts on itself, breakers, what was
cleared, and gaps in its watch. Journaled and judged like any event; their process is the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from .event import Event
from .layout import Doc
from .operations import GUARDED, OPERATIONS, SEEN
from .wire import S64, U32, U64, Chars, Choice, Pad3, Pad7

LIMITS, PRIORITY, OOM_SCORE = "limits_lowered", "priority_lowered", "oom_score_raised"
HELD, COVERED = "object_held", "folders_covered"
"""Attempts on the agent's standing that its own look found: no hook refuses them."""
GAP_STATES = {1: "died", 2: "machine_ended", 3: "held_up", 4: "stopped", 5: "frozen", 6: "starved"}
BREAKER_STATES = {1: "tripped", 2: "rearmed"}
FOUND = {
    64: "kprobes_off",
    65: "probes_forged",
    66: "disarmed",
    67: LIMITS,
    68: PRIORITY,
    69: OOM_SCORE,
    71: HELD,
    72: COVERED,
}
REFUSED = {70: "clear_refused"}
"""What the agent only found, without who did it, and put right where it could. `probes_forged`: a write to memory made
the kernel take kprobes or ftrace for switched off, which were not."""
ATTEMPTS = {**GUARDED, **FOUND, **REFUSED}
"""What is tried on the agent."""


@dataclass(frozen=True, slots=True)
class Contained(Event):
    """A poisoned process, or with scope `host` any process, was refused guarded operations."""

    KIND: ClassVar[int] = 0x0017
    NAME: ClassVar[str] = "krie.contained"
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {"contained": ("contained_tgid", "contained_start_time")}

    contained_start_time: Annotated[U64, Doc("start of that process, ns since boot")]
    count: Annotated[U64, Doc("refusals of this operation since the last such event")]
    contained_tgid: Annotated[U32, Doc("the process")]
    operation: Annotated[str, Choice("I", OPERATIONS), Doc("the guarded operation: a hook of the kernel")]
    rule: Annotated[str, Chars(64), Doc("rule behind the poison; empty where a program in the kernel decided")]


@dataclass(frozen=True, slots=True)
class Guarded(Event):
    """Somebody tried to harm the agent, which refused it; or what harms it was only seen."""

    KIND: ClassVar[int] = 0x0018
    NAME: ClassVar[str] = "krie.guarded"
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {"stranger": ("stranger_tgid", "stranger_start_time")}

    stranger_start_time: Annotated[U64, Doc("start of the process that tried, ns since boot; 0: not known")]
    count: Annotated[U64, Doc("how often since the last such event")]
    stranger_tgid: Annotated[U32, Doc("the process; 0: not known")]
    attempt: Annotated[
        str,
        Choice("B", ATTEMPTS),
        Doc(f"what was tried; {', '.join(f'`{each}`' for each in (*sorted(SEEN), *FOUND.values()))} were only seen"),
    ]
    pad: Pad3 = b""


@dataclass(frozen=True, slots=True)
class Breaker(Event):
    """A rule killed or poisoned so many that it only refuses from now on, or it is enforced in full again."""

    KIND: ClassVar[int] = 0x0019
    NAME: ClassVar[str] = "krie.breaker"

    processes: Annotated[U32, Doc("users, and programs or lineages of root's, that the rule hit within the period")]
    period_s: Annotated[U32, Doc("the period, s")]
    rule: Annotated[str, Chars(64), Doc("the rule")]
    state: Annotated[str, Choice("B", BREAKER_STATES), Doc("`tripped`: the rule only refuses from now on")]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class Cleared(Event):
    """What was decided was taken back: by an administrator, or by the agent to make room for another user's poison."""

    KIND: ClassVar[int] = 0x001A
    NAME: ClassVar[str] = "krie.cleared"

    processes: Annotated[U32, Doc("processes that are no longer poisoned")]
    verdicts: Annotated[U32, Doc("verdicts on operations that no longer stand")]
    by_tgid: Annotated[U32, Doc("the process that asked")]
    by_uid: Annotated[U32, Doc("its user")]
    what: Annotated[str, Chars(128), Doc("what was asked for")]


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """Monitoring was interrupted: the agent before this one did not end by itself, and what it decided ended with it;
    or this one was held up, while the kernel went on to decide what it decides alone."""

    KIND: ClassVar[int] = 0x001B
    NAME: ClassVar[str] = "krie.gap"

    last_seen_s: Annotated[S64, Doc("when the agent last said that it lives, s since 1970 UTC")]
    gap_s: Annotated[U64, Doc("time since then, s; of another boot as far as the clock was right then and now")]
    tgid_before: Annotated[U32, Doc("its process")]
    state: Annotated[
        str,
        Choice("B", GAP_STATES),
        Doc(
            "`died`; `machine_ended`: the machine was restarted since; this one was `stopped`, `frozen` with its "
            "cgroup, `starved` of processors, or `held_up`, where the kernel did not see by what"
        ),
    ]
    pad: Pad3 = b""


ENFORCEMENT_EVENTS: tuple[type[Event], ...] = (Contained, Guarded, Breaker, Cleared, Gap)
