"""The event types of cfi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import S32, U32, U64, Bool, Bytes, Chars, Choice, Doc, Event, FlagSet, Hex64, Inline, Pad4

from .declaration import GAINS as _GAINS
from .declaration import shipped
from .maps import COMPAT

NAMES = {each.number: name for name, each in shipped().functions.items()}
"""Those that always are locked; what is configured has no name here."""
OWNERS = {1: "kernel", 2: "module", 3: "other"}
GAINS = {bit: name for name, bit in _GAINS.items()}
WHICH = {1: "caller", 2: "path", 3: "right"}
LOCKS = {1: "filed", 2: "derived"}
STACK_BYTES = 160
FIRST_BYTES = 128
"""Of texts; the last one is a zero."""


@dataclass(frozen=True, slots=True)
class Caller(Event):
    """A locked function was called from outside its known callers, or gave credentials to a task without a right to.

    One record a thread, function and second; what a thread does further within it is counted (`cfi.activity`), and
    decided about as well.
    """

    KIND: ClassVar[int] = 0x0401
    NAME: ClassVar[str] = "cfi.caller"

    return_address: Annotated[Hex64, Doc("where the function would return to; 0 where that was unreadable")]
    kernel_stack: Annotated[bytes, Bytes(STACK_BYTES), Doc("return addresses found by the kernel: evidence")]
    gain: Annotated[
        tuple[str, ...],
        FlagSet("I", GAINS),
        Inline(),
        Doc("what the credentials given to commit_creds() have and the task's own have not; empty elsewhere"),
    ]
    number: Annotated[
        S32,
        Doc(
            f"of the system call, where credentials gain something, and {COMPAT} more for 32-bit callers; -2 where "
            "the kernel starts a program by itself; else, in kernel threads and in workers of io_uring, -1"
        ),
    ]
    function: Annotated[str, Choice("B", NAMES), Inline(), Doc("the locked function; `other`: a configured one")]
    owner: Annotated[
        str,
        Choice("B", OWNERS),
        Inline(),
        Doc("whose code the return address is in; `other`: nobody's, or user memory"),
    ]
    lock: Annotated[
        str,
        Choice("B", WHICH),
        Inline(),
        Doc(
            "`caller`: it is not a caller; `path`: it is one, or a tracer's, but credentials gain what this system "
            "call may not give; `right`: it may, but not to this task"
        ),
    ]
    certain: Annotated[
        Bool,
        Inline(),
        Doc(
            "all callers of the function are known; if not, calls by a pointer, or by a live patch, may be legal that "
            "nothing here knows of"
        ),
    ]
    pad: Pad4 = b""


@dataclass(frozen=True, slots=True)
class Lock(Event):
    """Which functions are locked, and whether the running kernel's callers are those in the lock file.

    Told once, when the callers were derived from the kernel's code: some seconds after the start.
    """

    KIND: ClassVar[int] = 0x0402
    NAME: ClassVar[str] = "cfi.lock"

    locked: Annotated[U32, Doc("functions that are locked")]
    callers: Annotated[U32, Doc("places that call them, as derived from the running kernel's code")]
    filed: Annotated[U32, Doc("places in the lock file")]
    differing: Annotated[U32, Doc("places that only one of the two has: the kernel's code was changed")]
    source: Annotated[str, Choice("I", LOCKS), Doc("`filed`: this build has a lock file; `derived`: it has none")]
    release: Annotated[str, Chars(64), Doc("of the lock file")]
    first: Annotated[str, Chars(FIRST_BYTES), Doc("the first difference, as `krie cfi diff` tells it")]
    unlocked: Annotated[str, Chars(FIRST_BYTES), Doc("functions that are not locked: missing here, or never called")]
    problem: Annotated[str, Chars(FIRST_BYTES), Doc("why nothing was derived, and nothing compared; else empty")]
    pad: Pad4 = b""


@dataclass(frozen=True, slots=True)
class Activity(Event):
    """How much was checked since the last time, so that silence is not blindness. Told where something was."""

    KIND: ClassVar[int] = 0x0403
    NAME: ClassVar[str] = "cfi.activity"

    checks: Annotated[U64, Doc("calls that were looked at")]
    failed: Annotated[U64, Doc("of these, from a place that is not a caller, or with a gain that may not be")]
    traced: Annotated[
        U64, Doc("of the checks, those whose return address was a tracer's: what gains was looked at all the same")
    ]
