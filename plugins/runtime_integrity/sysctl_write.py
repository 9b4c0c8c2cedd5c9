"""Writes below /proc/sys: the event, where the kernel shows it, and what proves that it does.

The new value is read as the kernel's handlers of numbers read it (proc_dointvec() and its relatives): the first number,
whatever follows it. Limits: the first 63 bytes are looked at, so a number behind 42 blanks or more may stay unread. A
handler's range or unit is not known here. Of several numbers the first one is compared. An empty write cannot be told
from one whose text the kernel could not copy for the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from krie import (
    LONG,
    ONLY,
    S64,
    U32,
    U64,
    Alternative,
    AnyFile,
    AttachType,
    Bool,
    Chars,
    Choice,
    Doc,
    Enforcement,
    Event,
    Inline,
    KernelFile,
    KernelMemory,
    Map,
    Maps,
    Pad6,
    Probe,
    Program,
    own_fields,
)

from .config import RuntimeIntegrityConfig
from .topic import PREFIX, Topic

CHANGES = {1: "lower", 2: "same", 3: "higher", 4: "none", 5: "unread"}
_VALUE_BYTES = 64
"""Of the old and the new text. A power of 2, which programs use as a mask."""
_STRICT = KernelFile("/proc/sys/kernel/sysctl_writes_strict")


@dataclass(frozen=True, slots=True)
class SysctlWrite(Event):
    """A value below /proc/sys is about to be written. The kernel may still refuse it for reasons of its own."""

    KIND: ClassVar[int] = 0x0103
    NAME: ClassVar[str] = "runtime_integrity.sysctl_write"
    VERSION: ClassVar[int] = 3

    new_int: Annotated[S64, Inline(), Doc("the number that the new value starts with; 0 unless `new_parsed`")]
    old_int: Annotated[S64, Inline(), Doc("the same of the old value; 0 unless `old_parsed`")]
    file_pos: Annotated[U64, Inline(), Doc("offset of the write in the file, its lower 32 bits")]
    length: Annotated[U32, Inline(), Doc("bytes written; 0 where `new_truncated`")]
    name: Annotated[str, Chars(128), Inline(), Doc("path below /proc/sys, with slashes: kernel/kptr_restrict")]
    old: Annotated[str, Chars(_VALUE_BYTES), Doc("text before the write")]
    new: Annotated[str, Chars(_VALUE_BYTES), Doc("text being written")]
    name_truncated: Annotated[Bool, Inline(), Doc("the name is longer than 127 bytes")]
    old_truncated: Annotated[Bool, Doc("the old value is longer than 63 bytes")]
    new_truncated: Annotated[Bool, Inline(), Doc("the new value is longer than 63 bytes")]
    new_parsed: Annotated[
        Bool, Inline(), Doc("the new value starts with a number that the kernel's handlers of numbers take")
    ]
    old_parsed: Annotated[Bool, Inline(), Doc("the old value starts with a number, likewise")]
    change: Annotated[
        str,
        Choice("B", CHANGES),
        Inline(),
        Doc(
            "`new_int` against `old_int`, or `other` where the old value is not a number; `none`: a sysctl of numbers "
            "ignores the write; `unread`: the new value is not a number, or lies beyond what was looked at"
        ),
    ]
    pad: Pad6 = b""


class Strict:
    """Tells the program whether the kernel ignores writes behind a file's start: kernel.sysctl_writes_strict.

    The program counts the writes to that, and believes the agent as long as there was none since it looked. The value
    is written a moment after the program counted, so after a write the agent waits for the look after the next one.
    """

    def __init__(self, file: AnyFile = _STRICT) -> None:
        """Nothing is attached yet."""
        self._file = file
        self._writes: Map | None = None
        self._found_at: Map | None = None
        self._before = 0

    def attach(self, maps: Maps, _memory: KernelMemory, _config: RuntimeIntegrityConfig) -> None:
        """Look for the first time. Raises `KernelError`."""
        self._writes, self._found_at = maps[f"{PREFIX}_strict_writes"], maps[f"{PREFIX}_strict_at"]
        self._before = 0
        self._look()

    def scan(self) -> Iterator[Event]:
        """Look again; there is no event in it. Raises `KernelError`."""
        self._look()
        return iter(())

    def _look(self) -> None:
        assert self._writes is not None
        assert self._found_at is not None
        writes = LONG.decode(self._writes.get(ONLY))
        if writes == self._before:
            strict = _text_of(self._file) == "1\n"
            self._found_at.set(ONLY, LONG.encode(strict * (writes + 1)))
        self._before = writes


def _text_of(file: AnyFile) -> str:
    """What a file holds; nothing where it cannot be read, which a kernel without the setting is among."""
    try:
        return file.read_text()
    except OSError:
        return ""


def topic() -> Topic:
    """Writes below /proc/sys."""
    strict = Strict()
    return Topic(
        SysctlWrite,
        (_probe(),),
        ("sysctl_write.bpf.c",),
        attach=strict.attach,
        scan=strict.scan,
        defines={"RUNTIME_INTEGRITY_VALUE_BYTES": _VALUE_BYTES},
    )


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
