"""What this plugin's programs and its Python share in maps, and numbers that both give a name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Annotated, ClassVar

from krie import U64, Array, Doc, Shared, constants


class Argument(IntFlag):
    """What `Program.argument` says."""

    NUMBER = 0x3F
    """Of the function."""


class Right(IntFlag):
    """What it takes to gain something in a system call: in `cfi_paths`, above the bits of what may be gained."""

    OF_USERS = 1 << 8
    OF_NAMESPACE = 1 << 9
    OF_PROGRAM = 1 << 10


COMPAT = 1 << 16
"""Added to the number of a system call of a 32-bit caller, in the keys of `cfi_paths` and in records."""

OF_KERNEL = 0xFFFF_FFFE
"""Instead of the number of a system call: the kernel starts a program by itself."""


@dataclass(frozen=True, slots=True)
class Kernel(Shared):
    """What the agent read in kallsyms, or 0, and what it found."""

    C_NAME: ClassVar[str] = "cfi_kernel"
    locked: Annotated[U64, Doc("by number of the function, a bit each")]
    certain: Annotated[U64, Doc("likewise")]
    text: Annotated[U64, Doc("the kernel's own code")]
    text_end: U64
    modules: Annotated[U64, Doc("where code is that was added later: modules, BPF, trampolines")]
    modules_end: U64
    trampolines: Annotated[tuple[int, ...], Array("Q", 3), Doc("where functions return to that are traced")]


@dataclass(frozen=True, slots=True)
class Place(Shared):
    """Who may call: a place behind a call of a function, by its number."""

    C_NAME: ClassVar[str] = "cfi_place"
    return_address: U64
    function: U64


@dataclass(frozen=True, slots=True)
class Count(Shared):
    """Checks on one CPU, by number of the function."""

    C_NAME: ClassVar[str] = "cfi_count"
    checks: U64
    failed: U64
    traced: Annotated[U64, Doc("those whose return address was a tracer's")]


DEFINES = {**constants("CFI", Argument), **constants("CFI", Right), "CFI_COMPAT": COMPAT, "CFI_OF_KERNEL": OF_KERNEL}
SHARED: tuple[type[Shared], ...] = (Kernel, Place, Count)
