"""What the core's own programs and the agent share in maps: `krie_...` in C. See `krie.events.shared`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated, ClassVar

from .agreed import C_DEFINES, PEEK_BYTES
from .identity import Identity
from .layout import Doc
from .shared import Memory, Nested, Shared, constants
from .wire import U16, U32, U64, Comm

SHARES = 1 << 16
"""Of the room for poisoned processes: half for users, half for containers. Those whose numbers are alike in their
lowest 15 bits have one between them."""


@dataclass(frozen=True, slots=True)
class Process(Shared):
    """A key: a process, or one kind of operation by it."""

    C_NAME: ClassVar[str] = "krie_process"
    start_time: U64
    tgid: U32
    kind: Annotated[U32, Doc("of the operation that a verdict is about; 0: poison, and where there is no verdict")] = 0


@dataclass(frozen=True, slots=True)
class File(Shared):
    """A key: a file, as `krie.events.identity.Identity` has it."""

    C_NAME: ClassVar[str] = "krie_file"
    ino: U64
    dev: U32
    generation: U32

    @classmethod
    def key(cls, identity: Identity) -> bytes:
        """The bytes of this file."""
        return cls(identity.ino, identity.dev, identity.generation).encode()


@dataclass(frozen=True, slots=True)
class State(Shared):
    """Who the agent is, of `krie_agent`."""

    C_NAME: ClassVar[str] = "krie_agent_state"
    tgid: Annotated[U32, Doc("in the initial PID namespace")]
    armed: Annotated[U32, Doc("nothing is sent before this is set")]


@dataclass(frozen=True, slots=True)
class Count(Shared):
    """Records of one kind on one CPU. All only grow."""

    C_NAME: ClassVar[str] = "krie_count"
    attempts: U64
    lost: Annotated[U64, Doc("for want of room")]
    alike: Annotated[U64, Doc("held back beyond a budget, and like one that was sent a moment before")]
    over: Annotated[U64, Doc("held back beyond a budget, and not like one")]


@dataclass(frozen=True, slots=True)
class Limits(Shared):
    """What is held back: zeros until the agent is armed, and then nothing is."""

    C_NAME: ClassVar[str] = "krie_limits"
    seed: Annotated[U64, Doc("odd, and nobody's but the agent's: or one attempt could be made to look like another")]
    common_bytes: Annotated[U64, Doc("of the ring: the rest is for what matters and is within its budget")]
    interval: Annotated[U64, Doc("ns between records of one kind by one user")]
    burst: Annotated[U64, Doc("ns of these that may come at once")]
    other_interval: Annotated[U64, Doc("the same, beyond that, of attempts that are unlike recent ones")]
    other_burst: U64
    repeat: Annotated[U64, Doc("ns that an attempt counts as like a recent one")]


class Importance(IntFlag):
    """What programs know of the policy about a kind."""

    MATTERS = 1
    """A rule of severity high or critical, or with an action, looks at it."""
    UNLIKE = 2
    """Such a rule reads more than is compared: no two of them are alike."""
    UNJUDGED = 4
    """A rule may act that only the agent knows: what it is not told of, nobody judges."""


@dataclass(frozen=True, slots=True)
class Spender(Shared):
    """A key: whose budget, and for what."""

    C_NAME: ClassVar[str] = "krie_spender"
    user: U32
    what: Annotated[U32, Doc("the kind's slot, twice; one more: the kernel decided about it")]


@dataclass(frozen=True, slots=True)
class Budget(Shared):
    """What somebody has left on one CPU."""

    C_NAME: ClassVar[str] = "krie_budget"
    next: Annotated[U64, Doc("when the next one is due; see krie_afford()")]
    other: U64
    held: Annotated[U64, Doc("how many were not sent")]


@dataclass(frozen=True, slots=True)
class Verdict(Shared):
    """What was decided about a process.

    The key is kept in the value: an element that is freed and used again could show a reader another one's value.
    """

    C_NAME: ClassVar[str] = "krie_verdict"
    process: Annotated[Process, Nested(Process)]
    until: Annotated[U64, Doc("ns since boot")]
    rule: Annotated[U32, Doc("the agent's number of the rule; 0: a program's own decision")]
    error: Annotated[U16, Doc("positive errno")]
    share: Annotated[U16, Doc("of the room that poison takes: one of `SHARES`")] = 0


@dataclass(frozen=True, slots=True)
class Busy(Shared):
    """What is read while there is nothing to do, and how often there was no room."""

    C_NAME: ClassVar[str] = "krie_busy"
    poisoned: Annotated[U32, Doc("how many processes")]
    flags: Annotated[U32, Doc("`Flags`")]
    left_out: Annotated[U64, Doc("how often a user had no room for another poisoned process; only grows")]


class Flags(IntFlag):
    """Why programs look further although nobody is poisoned."""

    HOST = 1
    """A verdict is on the whole host."""
    GUARD = 2
    CANARY = 4
    """The agent looks whether programs run."""


@dataclass(frozen=True, slots=True)
class Settings(Shared):
    """How long poison lasts, and the verdict on the whole host."""

    C_NAME: ClassVar[str] = "krie_settings"
    poison_ns: Annotated[U64, Doc("of a program's own poison")]
    host_until: U64
    host_rule: U32
    host_error: U32


class Change(IntEnum):
    """What the program `krie_change` is run for."""

    POISON = 1
    CLEAR = 2
    FLAGS = 3
    EXPIRE = 4
    POISON_BEYOND_SHARE = 5


class Done(IntFlag):
    """What a program did about an event: bits of `Event.done`."""

    REFUSED = 1
    POISONED = 2
    KILLED = 4
    """The kernel took the signal."""
    KILL_FAILED = 8
    """It did not: `Event.errno`."""
    POISON_FAILED = 16


class By(IntEnum):
    """What stood behind it: `Event.decided_by`."""

    POISON = 1
    VERDICT = 2
    TABLE = 3
    PROGRAM = 4
    BUDGET = 5
    """In no record, since what it refuses has none."""


class Context(IntFlag):
    """Who did it: bits of `Event.context`."""

    KERNEL_THREAD = 1
    CONTAINER = 2


class Lost(IntFlag):
    """Why a process has no name although its executable has one: bits of `Event.context`, too."""

    TRACED = 0x0004
    """A tracer changed its registers or memory."""
    WRITTEN = 0x0008
    """Another process wrote to its memory."""
    ENVIRONMENT = 0x0010
    """A variable for the dynamic linker, or more than is looked through."""
    EXECUTABLE = 0x0020
    """It claims another executable since: PR_SET_MM."""
    NAMESPACE = 0x0040
    """Whoever made its user or mount namespace chose its libraries."""
    SHARED = 0x0080
    """Its memory is its parent's: vfork() before the exec."""
    UNBOUND = 0x0100
    """Nobody saw what it executed."""
    SUPERVISED = 0x0200
    """Somebody answers its system calls: a seccomp filter from before the exec."""


@dataclass(frozen=True, slots=True)
class FieldTable(Shared):
    """How one inline field's value becomes a part of a row's number: see `krie.events.table_layout`."""

    C_NAME: ClassVar[str] = "krie_field_table"
    flip: Annotated[U64, Doc("puts negative numbers below the others")]
    mask: Annotated[U64, Doc("bits that count by themselves")]
    rest: Annotated[U64, Doc("bits that count as one, which becomes the highest")]
    first_point: U64
    points: Annotated[U64, Doc("how many; of a small number: the last interval")]
    first_step: U64
    half: Annotated[U64, Doc("16, or 4096 where there are more than 31 points")]


@dataclass(frozen=True, slots=True)
class Outcome(Shared):
    """What a row of a table decides."""

    C_NAME: ClassVar[str] = "krie_outcome"
    poison_ns: Annotated[U64, Doc("0: nobody is poisoned")]
    rule: U32
    error: U16
    kill: U16


@dataclass(frozen=True, slots=True)
class Inspected(Shared):
    """What `krie_inspect` answers behind the header of a record of the agent's own."""

    C_NAME: ClassVar[str] = "krie_inspected"
    tgid_tid: Annotated[U64, Doc("as the kernel's helpers say it, and so the next one")]
    uid_gid: U64
    file: Annotated[File, Nested(File), Doc("which the descriptor is; zeros: none")]
    holders: Annotated[U64, Doc("of the map or program that it is: who could use it")]
    comm: Comm


@dataclass(frozen=True, slots=True)
class Peeked(Shared):
    """What `krie_peek` answers. The keeper reads it and imports none of this: it is told where the memory begins."""

    C_NAME: ClassVar[str] = "krie_peeked"
    failed: U64
    memory: Annotated[bytes, Memory(PEEK_BYTES // 8)]


STRUCTS: tuple[type[Shared], ...] = (
    Process, File, State, Count, Limits, Spender, Budget, Verdict, Busy, Settings, FieldTable, Outcome,
    Inspected, Peeked,
)  # fmt: skip
CONSTANTS = {
    **C_DEFINES,
    **constants("KRIE", Importance),
    **constants("KRIE_BUSY", Flags),
    **constants("KRIE_CHANGE", Change),
    **constants("KRIE_DONE", Done),
    **constants("KRIE_BY", By),
    **constants("KRIE_CONTEXT", Context),
    **constants("KRIE_LOST", Lost),
    "KRIE_LOST": sum(Lost),
    "KRIE_SHARES": SHARES,
}
