"""What this plugin's programs and its Python share in maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import S32, U32, U64, Array, Doc, Memory, Shared

from .config import MOST_WRAPPED
from .events import PIECE_BYTES

WORDS = PIECE_BYTES // 8
DISPATCHERS = 8
CALLERS = 8
MOST_PIECES, MOST_MASKS, MOST_SITES = 1536, 512, 256
"""Entries of maps; one piece less than that, since the last ends them."""
MOST_HANDLERS = 1 + 3 * MOST_WRAPPED
"""Those of a system call that `handlers.handlers` names, from 1 on."""


@dataclass(frozen=True, slots=True)
class Kernel(Shared):
    """What the agent knows of this kernel. 0 where it is not known."""

    C_NAME: ClassVar[str] = "syscall_table_kernel"
    text: Annotated[U64, Doc("the kernel's own code")]
    text_end: U64
    modules: U64
    modules_end: U64
    wait: Annotated[U64, Doc("ns: looks of the timer are so far apart and, at random, up to three times as far")]
    trampolines: Annotated[tuple[int, ...], Array("Q", 3), Doc("where functions return to that are traced")]
    dispatchers: Annotated[
        tuple[int, ...], Array("Q", 2 * DISPATCHERS), Doc("begin and end of the code that may call handlers")
    ]


@dataclass(frozen=True, slots=True)
class Compared(Shared):
    """What is compared; length 0 ends all. See `pieces.Piece`."""

    C_NAME: ClassVar[str] = "syscall_table_piece"
    address: U64
    expected: Annotated[bytes, Memory(WORDS), Doc("at start")]
    seen: Annotated[bytes, Memory(WORDS), Doc("what was last told")]
    length: U32
    number: Annotated[S32, Doc("table, idt: of its first slot or gate; handler: of the system call; -1: none")]
    mask: Annotated[U32, Doc("which of its bytes count: an index")]
    where: Annotated[U32, Doc("a key of `events.WHERE`")]
    abi: U32
    sites: Annotated[U32, Doc("dispatch: an index, where its jumps are; 0: none")]
    start: Annotated[U32, Doc("bits of words that were not as they should be when the agent started")]
    ftrace: Annotated[U32, Doc("handler: 1 and the offset of the call that ftrace may make there; 0: none")]
    told_patched: Annotated[U32, Doc("whether it was told that another instruction stands in its place")] = 0
    older: Annotated[U32, Doc("bits of words that were found changed, and for which there was no record")] = 0
    telling: Annotated[U64, Doc("by how many programs it is being told")] = 0


@dataclass(frozen=True, slots=True)
class Mask(Shared):
    """Which bytes of a piece count: 0xff each."""

    C_NAME: ClassVar[str] = "syscall_table_mask"
    words: Annotated[bytes, Memory(WORDS)]


@dataclass(frozen=True, slots=True)
class Sites(Shared):
    """The jumps of a piece of a function that dispatches, by byte."""

    C_NAME: ClassVar[str] = "syscall_table_sites"
    mask: Annotated[bytes, Memory(WORDS), Doc("bytes of jumps")]
    start: Annotated[tuple[int, ...], Array("B", PIECE_BYTES), Doc("where the jump begins that this byte is part of")]
    number: Annotated[tuple[int, ...], Array("h", PIECE_BYTES), Doc("of the system call")]


@dataclass(frozen=True, slots=True)
class Look(Shared):
    """A look on its way, by the kind of program that takes it: those can interrupt one another on one CPU."""

    C_NAME: ClassVar[str] = "syscall_table_look"
    content: Annotated[bytes, Memory(WORDS)]
    next: Annotated[U64, Doc("piece to look at")]
    trigger: U64
    looks: U64
    unreadable: U64


@dataclass(frozen=True, slots=True)
class Entered(Shared):
    """A handler whose entry is watched, by its index in `handlers.handlers`."""

    C_NAME: ClassVar[str] = "syscall_table_handler"
    checked: U64 = 0
    told: Annotated[tuple[int, ...], Array("Q", CALLERS), Doc("return addresses that a record was sent for")] = ()
    next: Annotated[U64, Doc("where the next one goes: of many callers the last ones are known")] = 0
    number: S32 = 0
    abi: U32 = 0


DEFINES = {
    "SYSCALL_TABLE_WORDS": WORDS,
    "SYSCALL_TABLE_DISPATCHERS": DISPATCHERS,
    "SYSCALL_TABLE_CALLERS": CALLERS,
    "SYSCALL_TABLE_PIECES": MOST_PIECES,
    "SYSCALL_TABLE_MASKS": MOST_MASKS,
    "SYSCALL_TABLE_SITES": MOST_SITES,
    "SYSCALL_TABLE_HANDLERS": MOST_HANDLERS,
}
SHARED: tuple[type[Shared], ...] = (Kernel, Compared, Mask, Sites, Look, Entered)
