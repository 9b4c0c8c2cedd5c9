"""Writes below /proc/sys: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from krie import (
    S64,
    U32,
    U64,
    Alternative,
    AttachType,
    Bool,
    Chars,
    Choice,
    Doc,
    Enforcement,
    Event,
    Inline,
    Pad6,
    Probe,
    Program,
    own_fields,
)

from .topic import PREFIX, Topic

CHANGES = {1: "lower", 2: "same", 3: "higher"}


@dataclass(frozen=True, slots=True)
class SysctlWrite(Event):
    """A value below /proc/sys is about to be written. The kernel may still refuse it for reasons of its own."""

    KIND: ClassVar[int] = 0x0103
    NAME: ClassVar[str] = "runtime_integrity.sysctl_write"
    VERSION: ClassVar[int] = 2

    new_int: Annotated[S64, Inline(), Doc("the number that the new value starts with; 0 unless `new_parsed`")]
    old_int: Annotated[S64, Inline(), Doc("the same of the old value; 0 unless `old_parsed`")]
    file_pos: Annotated[U64, Inline(), Doc("offset of the write in the file; the kernel ignores most writes behind 0")]
    length: Annotated[U32, Inline(), Doc("bytes written; 0 where `new_truncated`")]
    name: Annotated[str, Chars(128), Inline(), Doc("path below /proc/sys, with slashes: kernel/kptr_restrict")]
    old: Annotated[str, Chars(64), Doc("text before the write")]
    new: Annotated[str, Chars(64), Doc("text being written")]
    name_truncated: Annotated[Bool, Inline(), Doc("the name is longer than 127 bytes")]
    old_truncated: Annotated[Bool, Doc("the old value is longer than 63 bytes")]
    new_truncated: Annotated[Bool, Inline(), Doc("the new value is longer than 63 bytes")]
    new_parsed: Annotated[Bool, Inline(), Doc("the new value is one integer, blanks around it ignored")]
    old_parsed: Annotated[Bool, Inline(), Doc("the old value is one integer, likewise")]
    change: Annotated[
        str, Choice("B", CHANGES), Inline(), Doc("the new value against the old one; `other` unless both are integers")
    ]
    pad: Pad6 = b""


def topic() -> Topic:
    """Writes below /proc/sys."""
    return Topic(SysctlWrite, (_probe(),), ("sysctl_write.bpf.c",))


def _probe() -> Probe:
    program = Program(AttachType.CGROUP_SYSCTL, "", f"{PREFIX}_sysctl")
    alternative = Alternative(
        "cgroup_sysctl",
        (program,),
        fields=own_fields(SysctlWrite),
        can=frozenset({Enforcement.REFUSE}),
        limits="writes by kernel code itself, such as boot parameters, do not pass here",
    )
    return Probe("sysctl_write", SysctlWrite, (alternative,), _canary)


def _canary() -> None:
    """Read a sysctl: the program runs for reads too. Raises `OSError`."""
    Path("/proc/sys/kernel/ostype").read_bytes()
