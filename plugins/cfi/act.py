"""Acts that only a right permits: the event, where the kernel shows them, and what proves that it does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from krie import (
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
    Pad2,
    Probe,
    Program,
    own_fields,
)

from .declaration import shipped

ACTS = {each.number: name for name, each in shipped().acts.items()}
_BOTH = (AttachType.LSM, AttachType.FMOD_RET)


@dataclass(frozen=True, slots=True)
class Act(Event):
    """Only with `acts = true`: an act that needs a capability, by a task without it, after the kernel's own check.

    The task's own credentials and those that it acts by at this moment are checked: neither has the capability, nor
    owns the file where that is enough. `locked.toml` and `krie cfi explain ACT` tell which capability each act needs,
    and where it is judged.
    """

    KIND: ClassVar[int] = 0x0404
    NAME: ClassVar[str] = "cfi.act"

    ino: Annotated[U64, Doc("inode number of the file, for `device_node` of its folder; 0 where there is none")]
    dev: Annotated[U32, Doc("device of its file system, as the kernel numbers it (major << 20 | minor)")]
    owner: Annotated[U32, Doc("user who owns it")]
    mode: Annotated[U32, Doc("its type and permissions, for `setuid_root` and `device_node` those to come")]
    fsuid: Annotated[U32, Inline(), Doc("user for accesses of files, by the task's own credentials")]
    acting_fsuid: Annotated[U32, Inline(), Doc("the same, by the credentials that it acts by")]
    name: Annotated[str, Chars(64), Doc("name of the file; empty where there is none")]
    act: Annotated[str, Choice("B", ACTS), Inline(), Doc("what is done")]
    foreign: Annotated[Bool, Inline(), Doc("the task is in a user namespace of its own")]
    pad: Pad2 = b""


def probes() -> tuple[Probe, ...]:
    """One for each place where acts are seen: at the kernel's own questions to its security modules."""
    # The hook inode_setattr does not know, on 6.1 to 6.8, whether the mount maps users; the function before it does.
    functions_first = tuple(reversed(_BOTH))
    return (
        _probe("file_capability", {"inode_setxattr": "setxattr"}, _write_an_attribute),
        _probe("setuid_root", {"inode_setattr": "setattr"}, _change_a_mode, functions_first),
        _probe("open_for_writing", {"file_open": "open"}, _open_for_writing),
        _probe("device_node", {"inode_mknod": "mknod"}, _make_a_pipe),
        _probe("module", {"kernel_read_file": "read_file", "kernel_load_data": "load_data"}),
        _probe("mount", dict.fromkeys(("sb_kern_mount", "sb_remount", "move_mount", "sb_umount"), "mount")),
    )


def _probe(
    name: str,
    hooks: dict[str, str],
    canary: Callable[[], None] | None = None,
    ways: tuple[AttachType, ...] = _BOTH,
) -> Probe:
    def program(attach: AttachType, number: int, hook: str) -> Program:
        target = hook if attach is AttachType.LSM else f"security_{hook}"
        return Program(attach, target, f"cfi_{hooks[hook]}", proven=canary is not None, argument=number)

    return Probe(
        f"act_{name}",
        Act,
        tuple(
            Alternative(
                str(attach),
                tuple(program(attach, number, hook) for number, hook in enumerate(hooks, 1)),
                fields=own_fields(Act),
                can=frozenset({Enforcement.REFUSE, Enforcement.KILL}),
                limits="does not see what the kernel does without asking its security modules"
                + ("" if canary else "; no canary can prove it alive"),
            )
            for attach in ways
        ),
        canary,
        optional=True,
    )


def _write_an_attribute() -> None:
    with tempfile.NamedTemporaryFile(prefix="krie-") as file, suppress(OSError):  # file systems may have none
        os.setxattr(file.name, "user.krie", b"")


def _change_a_mode() -> None:
    with tempfile.NamedTemporaryFile(prefix="krie-") as file:
        os.fchmod(file.fileno(), 0o600)


def _open_for_writing() -> None:
    file = os.memfd_create("krie-writable", os.MFD_CLOEXEC)
    try:
        os.close(os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_CLOEXEC))
    finally:
        os.close(file)


def _make_a_pipe() -> None:
    with tempfile.TemporaryDirectory(prefix="krie-") as folder:
        os.mkfifo(Path(folder, "pipe"), 0o600)
