"""The event types of syscall_table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import S32, U32, U64, Bool, Bytes, Chars, Choice, Doc, Event, Hex64, Inline, Pad2, Pad4, Pad5, Pad7

TABLE, DISPATCH, HANDLER, ENTRY, IDT, POINTER, REGISTER = range(1, 8)
WHERE = {
    TABLE: "table",
    DISPATCH: "dispatch",
    HANDLER: "handler",
    ENTRY: "entry",
    IDT: "idt",
    POINTER: "pointer",
    REGISTER: "register",
}
NO_ABI, X64, IA32, X32 = range(4)
ABIS = {NO_ABI: "none", X64: "x64", IA32: "ia32", X32: "x32"}
TRIGGERS = {
    1: "start",
    2: "timer",
    3: "module_init",
    4: "module_load",
    5: "module_free",
    6: "text_poke",
    7: "alias",
    8: "set_memory",
    9: "scan",
}
"""Numbers of what a look was taken for; a program's argument is one of them."""
TARGETS = {1: "kernel", 2: "module", 3: "other", 4: "none"}
REFERENCES = {0: "none", 1: "image", 2: "start", 3: "file", 4: "load"}
SECTIONS = {1: "text", 2: "rodata", 3: "module", 4: "list", 5: "bpf"}
PIECE_BYTES = 128
"""Most bytes that are hashed, and told, at a time."""


@dataclass(frozen=True, slots=True)
class Hook(Event):
    """Part of the system call path was changed, or restored. Told once for each new value.

    The process is whoever ran when it was noticed. With `own_module` it did it, by a module that it loads. Without,
    where the trigger is `module_init`, it was done while that module's init function ran, by it or on another CPU;
    `text_poke` and `alias`: it has just patched code, or removed a mapping, but what is found may be older; else it is
    anybody.
    """

    KIND: ClassVar[int] = 0x0301
    NAME: ClassVar[str] = "syscall_table.hook"

    address: Annotated[
        Hex64, Doc("where: the slot, the jump, or the begin of the bytes that differ; register: its number")
    ]
    was: Annotated[Hex64, Doc("table, dispatch, pointer, register: where it led before; 0 where that is not known")]
    now: Annotated[Hex64, Doc("likewise: where it leads now")]
    content: Annotated[bytes, Bytes(PIECE_BYTES), Doc("handler, entry, idt: the bytes there now, up to 128")]
    number: Annotated[
        S32,
        Inline(),
        Doc("number of the system call, as callers of `abi` know it; idt: the vector; register: the CPU; -1: none"),
    ]
    piece: Annotated[U32, Doc("the agent's number of what was looked at")]
    where: Annotated[
        str,
        Choice("B", WHERE),
        Inline(),
        Doc(
            "`table`: a slot of a system call table; `dispatch`: a jump or call of the function that dispatches; "
            "`handler`: its first bytes; `entry`: code on the way there; `idt`: a gate of the interrupt table; "
            "`pointer`: one of the configured pointers to functions; `register`: of the processor, or the kernel's "
            "copy of CR4, whose address is told then"
        ),
    ]
    abi: Annotated[str, Choice("B", ABIS), Inline(), Doc("whose system calls")]
    trigger: Annotated[
        str,
        Choice("B", TRIGGERS),
        Inline(),
        Doc("what the look was taken for; `start`: it was so when the agent started"),
    ]
    target: Annotated[
        str,
        Choice("B", TARGETS),
        Inline(),
        Doc("what `now` leads to: the `kernel`'s own code, the range of `module`s, `other` memory; `none`: no address"),
    ]
    restored: Annotated[Bool, Inline(), Doc("it is as it was when the agent started")]
    own_module: Annotated[
        Bool,
        Inline(),
        Doc("`now` leads into the module that the process is loading, whose init function runs or has just returned"),
    ]
    pad: Pad2 = b""


@dataclass(frozen=True, slots=True)
class Code(Event):
    """The kernel's code, or its read-only data, was changed, or restored.

    Found by comparison, byte by byte; what the kernel patches legally is not told. Told once for each new content.
    """

    KIND: ClassVar[int] = 0x0302
    NAME: ClassVar[str] = "syscall_table.code"

    address: Annotated[Hex64, Doc("the first byte that differs")]
    target: Annotated[Hex64, Doc("where a jump or call leads that stands there now; 0 where none does")]
    length: Annotated[U32, Doc("from the first to the last byte that differs")]
    others: Annotated[U32, Doc("further places that differ, too many to be told one by one")]
    was: Annotated[bytes, Bytes(16), Doc("up to 16 bytes, as they should be; `restored`: as they were told")]
    now: Annotated[bytes, Bytes(16), Doc("the same as they are now")]
    symbol: Annotated[str, Chars(128), Doc("function and offset; of data the address")]
    target_symbol: Annotated[str, Chars(128), Doc("what `target` lies in; empty where that has no name")]
    owner: Annotated[
        str,
        Chars(64),
        Doc(
            "whose code `target` lies in: `kernel`, the module, `bpf` and the like for code that these made; `?`: "
            "nobody's that is known; empty without a target"
        ),
    ]
    section: Annotated[
        str,
        Choice("B", SECTIONS),
        Doc(
            "`text`, `rodata`: of the kernel itself; `module`, `bpf`: code of a module, or that BPF made; `list`: no "
            "code, but a pointer in one of the kernel's lists of functions, which `symbol` names; `target` is nobody's"
        ),
    ]
    reference: Annotated[
        str,
        Choice("B", REFERENCES),
        Doc(
            "what it was compared with: the boot `image`, or what was there at the agent's `start`; of modules their "
            "`file` below /lib/modules, or, as BPF's code, what was there when it was first seen behind its `load`"
        ),
    ]
    restored: Annotated[Bool, Doc("it is as it should be")]
    pad: Pad5 = b""


@dataclass(frozen=True, slots=True)
class Wrapped(Event):
    """A system call's handler was called by code outside the dispatcher: a hook that calls the original.

    Told once for each handler and caller.
    """

    KIND: ClassVar[int] = 0x0303
    NAME: ClassVar[str] = "syscall_table.wrapped"

    ip: Annotated[Hex64, Doc("the handler; `symbol` names it")]
    return_address: Annotated[Hex64, Doc("where it returns to")]
    number: Annotated[S32, Inline(), Doc("number of the system call; -1: not known")]
    abi: Annotated[str, Choice("B", ABIS), Inline(), Doc("whose system calls")]
    target: Annotated[
        str,
        Choice("B", TARGETS),
        Inline(),
        Doc("what it returns to: the `kernel`'s own code, the range of `module`s, `other` memory"),
    ]
    pad: Pad2 = b""


@dataclass(frozen=True, slots=True)
class Listed(Event):
    """A function came to one of the kernel's lists that change seldom, or went from it.

    Of functions that have an owner, such as a module that is listed: it is legal that these come and go. What is
    nobody's is told by `syscall_table.code`.
    """

    KIND: ClassVar[int] = 0x0305
    NAME: ClassVar[str] = "syscall_table.listed"

    address: Annotated[Hex64, Doc("where the pointer to it lies, or lay")]
    function: Annotated[Hex64, Doc("what the kernel calls")]
    list: Annotated[
        str, Chars(64), Doc("notifiers, packet filters, formats of programs, hooks of security modules: which list")
    ]
    symbol: Annotated[str, Chars(128), Doc("of the function; empty where it has no name")]
    owner: Annotated[
        str,
        Chars(64),
        Doc("whose code it is, or was when it came: `kernel`, the module, `bpf` and the like for code that these made"),
    ]
    came: Annotated[Bool, Doc("it was not there at the last look; else it has gone since")]
    pad: Pad7 = b""


@dataclass(frozen=True, slots=True)
class Activity(Event):
    """How much was looked at since the last time, so that silence is not blindness."""

    KIND: ClassVar[int] = 0x0304
    NAME: ClassVar[str] = "syscall_table.activity"

    looks: Annotated[U64, Doc("looks at the places")]
    checked: Annotated[U64, Doc("entries of handlers whose caller was checked")]
    text_bytes: Annotated[U64, Doc("bytes of code and read-only data that were compared with the reference")]
    places: Annotated[U32, Doc("places: slots, jumps, handlers, gates, pointers and pieces of code")]
    unreadable: Annotated[U32, Doc("pieces that could not be read at some look")]
    reference: Annotated[str, Choice("I", REFERENCES), Doc("what code is compared with")]
    unknown: Annotated[str, Chars(384), Doc("what this kernel does not tell, and is not looked at")]
    pad: Pad4 = b""
