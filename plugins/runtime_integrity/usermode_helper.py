"""Programs that the kernel starts by itself: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import U32, Alternative, AttachType, Bool, Chars, Doc, Event, Inline, Pad6, Probe, Program, own_fields

from .topic import KILLS, PREFIX, Topic, hooked


@dataclass(frozen=True, slots=True)
class UsermodeHelper(Event):
    """The kernel is about to start a program by itself, as root: modprobe, a handler of core dumps and the like.

    Told at the exec, whatever asked for it: a path that was written to the kernel's memory is seen when it is used,
    however short it stood there. `process` is the kernel's thread that becomes the program. On whose behalf the kernel
    starts it is not known. A program that is run by an interpreter (a script, or a file of binfmt_misc's) is told once
    more where somebody other than root controls the interpreter: then the fields about the file are the interpreter's.
    """

    KIND: ClassVar[int] = 0x010C
    NAME: ClassVar[str] = "runtime_integrity.usermode_helper"
    VERSION: ClassVar[int] = 2

    file_uid: Annotated[U32, Inline(), Doc("user who owns the file")]
    path: Annotated[str, Chars(128), Inline(), Doc("the file's path, as the kernel has it")]
    argument_1: Annotated[str, Chars(16), Doc("the first argument behind the program's own name, its first 15 bytes")]
    argument_2: Annotated[str, Chars(16), Doc("the second one, likewise")]
    argument_3: Annotated[str, Chars(64), Doc("the third one: for modprobe, the module; its first 63 bytes")]
    path_truncated: Annotated[Bool, Inline(), Doc("the path is longer than 127 bytes")]
    others_write: Annotated[Bool, Inline(), Doc("the file's group or everybody may write to it")]
    file_deleted: Annotated[Bool, Inline(), Doc("the file has no name any more, or never had one")]
    asks_for_module: Annotated[
        Bool, Inline(), Doc("its arguments begin with `-q --`, as the kernel's own for modprobe do")
    ]
    other_variables: Annotated[Bool, Inline(), Doc("its environment has variables besides HOME, TERM and PATH")]
    interpreter: Annotated[Bool, Inline(), Doc("what is told of the file is told of its interpreter")]
    pad: Pad6 = b""


def topic() -> Topic:
    """Programs that the kernel starts."""
    everything = own_fields(UsermodeHelper)
    limits = "sees three arguments and the names of variables, not on whose behalf the kernel starts the program"
    # No canary can have the kernel start a program without harm.
    given = Program(AttachType.FENTRY, "kernel_execve", f"{PREFIX}_helper_given", proven=False)
    ways = tuple(
        hooked(attach, {hook: ("helper",)}, fields=everything, also=(given,), limits=limits)
        for attach, hook in ((AttachType.LSM, "bprm_check_security"), (AttachType.FMOD_RET, "bprm_check"))
    )
    afterwards = Alternative(
        str(AttachType.RAW_TRACEPOINT),
        (Program(AttachType.RAW_TRACEPOINT, "sched_process_exec", f"{PREFIX}_helper_executed"),),
        fields=everything,
        can=KILLS,
        limits=f"{limits}; of a script, whose file it is, who may write it and the arguments are those of its "
        "interpreter; what a started program executes in its own place is told like it",
    )
    probe = Probe("usermode_helper", UsermodeHelper, (*ways, afterwards), _canary)
    return Topic(UsermodeHelper, (probe,), ("usermode_helper.bpf.c",))


def _canary() -> None:
    """Execute a file: the program runs for each. Raises `OSError`."""
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
