"""What this plugin's programs and its Python share in maps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Annotated, ClassVar

from krie import U64, Array, Doc, Shared


class Argument(IntFlag):
    """What `Program.argument` says."""

    NUMBER = 0x3F
    """Of the function."""
    OWN_STACK = 0x40
    """It runs in the context of a process, on its stack."""
    TRAP = 0x80
    CREDENTIALS = 0x100
    """Its first argument are credentials."""
    SECOND = 0x200
    """Tells the two traps of a function apart."""


@dataclass(frozen=True, slots=True)
class Kernel(Shared):
    """What the agent read in kallsyms, or 0, and what is configured."""

    C_NAME: ClassVar[str] = "smep_smap_kernel"
    text: Annotated[U64, Doc("the kernel's own code")]
    text_end: U64
    modules: Annotated[U64, Doc("where code is that was added later: modules, BPF, trampolines")]
    modules_end: U64
    init_cred: U64
    trampolines: Annotated[tuple[int, ...], Array("Q", 3), Doc("where functions return to that are traced")]
    wants_stack: Annotated[U64, Doc("1: the kernel's stack goes into records")]


@dataclass(frozen=True, slots=True)
class Count(Shared):
    """Checks on one CPU, by number of the function."""

    C_NAME: ClassVar[str] = "smep_smap_count"
    checks: U64
    failed: U64
    repeated: U64
    traced: U64
    stack: Annotated[U64, Doc("see smep_smap_stack_of()")]
    caller: Annotated[U64, Doc("the return address that was last found good, by reading the code before it")]
