"""The event types of smep_smap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import U32, U64, Bool, Bytes, Chars, Choice, Doc, Event, FlagSet, Hex64, Inline, Pad7

from .functions import NAMES

CHECKS = {
    1 << 0: "return_user",
    1 << 1: "return_text",
    1 << 2: "return_call",
    1 << 3: "stack_user",
    1 << 4: "stack_kernel",
    1 << 5: "init_cred",
}
"""Bits that `register_check.bpf.c` sets: what was found wrong."""
PLACES = {1: "entry", 2: "trap"}
TRAP_STATES = {1: "vanished", 2: "disarmed", 3: "unreadable"}
STACK_BYTES = 128


@dataclass(frozen=True, slots=True)
class RegisterCheck(Event):
    """A function was reached in a state that no legitimate call produces.

    One record a thread and second: what a hijacked thread does further within it is counted (`smep_smap.activity`), and
    decided about as well.
    """

    KIND: ClassVar[int] = 0x0201
    NAME: ClassVar[str] = "smep_smap.register_check"

    ip: Annotated[Hex64, Doc("instruction at which it was seen; `symbol` names it")]
    sp: Annotated[Hex64, Doc("stack pointer there")]
    return_address: Annotated[Hex64, Doc("what the stack pointer pointed at; 0 where that was unreadable")]
    stack: Annotated[Hex64, Doc("lowest address of the task's own kernel stack")]
    ax: Annotated[Hex64, Doc("register")]
    bx: Annotated[Hex64, Doc("register")]
    cx: Annotated[Hex64, Doc("register")]
    dx: Annotated[Hex64, Doc("register")]
    si: Annotated[Hex64, Doc("register")]
    di: Annotated[Hex64, Doc("register; at an entry the first argument")]
    bp: Annotated[Hex64, Doc("register; no frame pointer on most kernels, so it is not checked")]
    r8: Annotated[Hex64, Doc("register")]
    r9: Annotated[Hex64, Doc("register")]
    r10: Annotated[Hex64, Doc("register")]
    r11: Annotated[Hex64, Doc("register")]
    r12: Annotated[Hex64, Doc("register")]
    r13: Annotated[Hex64, Doc("register")]
    r14: Annotated[Hex64, Doc("register")]
    r15: Annotated[Hex64, Doc("register")]
    kernel_stack: Annotated[
        bytes, Bytes(STACK_BYTES), Doc("return addresses found by the kernel, if `kernel_stack` is configured")
    ]
    failed: Annotated[
        tuple[str, ...],
        FlagSet("I", CHECKS),
        Inline(),
        Doc(
            "`return_user`: the return address is in user memory; `return_text`: in no code of the kernel; "
            "`return_call`: not behind a call; `stack_user`: the stack is in user memory; `stack_kernel`: in kernel "
            "memory that is not the task's stack; `init_cred`: commit_creds() got the first task's credentials"
        ),
    ]
    function: Annotated[str, Choice("B", NAMES), Inline(), Doc("the watched function; `other`: a configured one")]
    place: Annotated[str, Choice("B", PLACES), Inline(), Doc("`trap`: at an instruction inside of it")]
    traced: Annotated[
        Bool, Inline(), Doc("the return address is a tracer's (kretprobe, function_graph), and says nothing")
    ]
    code_known: Annotated[
        Bool,
        Inline(),
        Doc("where the kernel's code lies is known; if not, `return_text` is found only where nothing can be read"),
    ]


@dataclass(frozen=True, slots=True)
class LostTrap(Event):
    """A probe of this plugin is no longer where it was put, or this cannot be verified."""

    KIND: ClassVar[int] = 0x0202
    NAME: ClassVar[str] = "smep_smap.trap"

    offset: Annotated[U32, Doc("bytes behind the function's begin")]
    state: Annotated[
        str,
        Choice("I", TRAP_STATES),
        Doc("`unreadable`: the kernel's list of kprobes cannot be read, so none will be missed"),
    ]
    function: Annotated[str, Chars(64), Doc("the watched function; empty for all")]
    reason: Annotated[str, Chars(128), Doc("what the list says, or why it cannot be read")]


@dataclass(frozen=True, slots=True)
class Activity(Event):
    """How much was checked since the last time, so that silence is not blindness. Told where something was."""

    KIND: ClassVar[int] = 0x0203
    NAME: ClassVar[str] = "smep_smap.activity"

    checks: Annotated[U64, Doc("function entries and traps that were checked")]
    failed: Annotated[U64, Doc("of these, found wrong")]
    repeated: Annotated[U64, Doc("of those, not told again: the same thread within a second")]
    traced: Annotated[U64, Doc("entries whose return address was a tracer's, so that it could not be checked")]
    busiest: Annotated[str, Choice("B", NAMES), Doc("the function that was checked most")]
    pad: Pad7 = b""
