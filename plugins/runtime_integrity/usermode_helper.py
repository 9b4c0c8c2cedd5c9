"""Programs that the kernel starts by itself: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import U32, Alternative, AttachType, Bool, Chars, Doc, Event, Inline, Pad1, Probe, Program, own_fields

from .topic import KILLS, PREFIX, Topic, hooked


@dataclass(frozen=True, slots=True)
class UsermodeHelper(Event):
    """The kernel is about to start a program by itself, as root: modprobe, a handler of core dumps and the like.

    Told at the exec, whatever asked for it: a path that was written to the kernel's memory is seen when it is used,
    however short it stood there. `process` is the kernel's thread that becomes the program. Its arguments are not
    known, nor on whose behalf the kernel starts it.
    """

    KIND: ClassVar[int] = 0x010C
    NAME: ClassVar[str] = "runtime_integrity.usermode_helper"

    file_uid: Annotated[U32, Inline(), Doc("user who owns the file")]
    path: Annotated[str, Chars(128), Inline(), Doc("the file's path, as the kernel has it")]
    path_truncated: Annotated[Bool, Inline(), Doc("the path is longer than 127 bytes")]
    others_write: Annotated[Bool, Inline(), Doc("the file's group or everybody may write to it")]
    file_deleted: Annotated[Bool, Inline(), Doc("the file has no name any more, or never had one")]
    pad: Pad1 = b""


def topic() -> Topic:
    """Programs that the kernel starts."""
    everything = own_fields(UsermodeHelper)
    limits = "sees neither the arguments nor on whose behalf the kernel starts the program"
    ways = tuple(
        hooked(attach, {hook: ("helper",)}, fields=everything, limits=limits)
        for attach, hook in ((AttachType.LSM, "bprm_check_security"), (AttachType.FMOD_RET, "bprm_check"))
    )
    afterwards = Alternative(
        str(AttachType.RAW_TRACEPOINT),
        (Program(AttachType.RAW_TRACEPOINT, "sched_process_exec", f"{PREFIX}_helper_executed"),),
        fields=everything,
        can=KILLS,
        limits=f"{limits}; of a script, whose file it is and who may write it is told of its interpreter; "
        "what a started program executes in its own place is told like it",
    )
    probe = Probe("usermode_helper", UsermodeHelper, (*ways, afterwards), _canary)
    return Topic(UsermodeHelper, (probe,), ("usermode_helper.bpf.c",))


def _canary() -> None:
    """Execute a file: the program runs for each. Raises `OSError`."""
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
