"""Kernel modules that are loaded: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from krie import (
    U32,
    U64,
    AttachType,
    Bool,
    Bytes,
    CannotProve,
    Chars,
    Choice,
    Doc,
    Event,
    FlagSet,
    Inline,
    Json,
    KernelFile,
    Pad7,
    Probe,
    Program,
    own_fields,
    path_text,
    system_call,
)

from .code_owner import ModuleRanges
from .topic import PREFIX, SYSCALL_LIMITS, Topic, called, hooked, is_set

STEPS = {1: "file", 2: "memory", 3: "linked"}
FLAGS = {1: "ignore_modversions", 2: "ignore_vermagic", 4: "compressed_file"}
TAINTS = {
    1 << 0: "proprietary",
    1 << 1: "forced",
    1 << 10: "staging",
    1 << 12: "out_of_tree",
    1 << 13: "unsigned",
    1 << 15: "livepatch",
    1 << 18: "test",
}
_PATH_BYTES = 512
_NO_MODULES = KernelFile("/proc/sys/kernel/modules_disabled")
_SYS_INIT_MODULE, _SYS_FINIT_MODULE = 175, 313  # x86-64


@dataclass(frozen=True, slots=True)
class ModuleLoad(Event):
    """A kernel module is loaded, from a file or from memory.

    A load is two events of the same thread: when the kernel is about to read the module, and when it has linked it and
    is about to run it. The module's name is known to the second one only, which is too late to refuse it; where it
    comes from, to the first. Firmware and everything else that the kernel reads are left out.
    """

    KIND: ClassVar[int] = 0x0104
    NAME: ClassVar[str] = "runtime_integrity.module_load"

    file_ino: Annotated[U64, Doc("file: inode number")]
    code_address: Annotated[U64, Doc("linked: where its code begins; 0 where the kernel's types do not tell")]
    file_dev: Annotated[U32, Doc("file: device of its file system, as the kernel numbers it (major << 20 | minor)")]
    file_generation: Annotated[U32, Doc("file: generation of that inode")]
    file_uid: Annotated[U32, Inline(), Doc("file: user who owns it")]
    path_length: Annotated[U32, Doc("file: bytes used of `path` in the record")]
    code_size: Annotated[U32, Doc("linked: bytes of its code")]
    taints: Annotated[
        tuple[str, ...], FlagSet("I", TAINTS), Inline(), Doc("linked: what the kernel holds against the module")
    ]
    flags: Annotated[
        tuple[str, ...], FlagSet("I", FLAGS), Inline(), Doc("file, linked: flags of finit_module(2); empty for others")
    ]
    path: Annotated[bytes, Bytes(_PATH_BYTES), Doc("file: its path; empty where it is not known")]
    name: Annotated[str, Chars(56), Doc("linked: name of the module")]
    args: Annotated[
        str, Chars(128), Doc("its parameters, the first 127 bytes, from user memory, which the caller can change")
    ]
    step: Annotated[
        str,
        Choice("B", STEPS),
        Inline(),
        Doc("before it is read from a `file` or from `memory`; `linked`: about to run"),
    ]
    helper: Annotated[
        Bool, Inline(), Doc("the process was started by the kernel itself, which wants a module (request_module)")
    ]
    others_write: Annotated[Bool, Inline(), Doc("file: its group or everybody may write to it")]
    file_deleted: Annotated[Bool, Inline(), Doc("file: it has no name any more, or never had one")]
    path_truncated: Annotated[Bool, Doc("file: the path goes on above its first component")]
    pad: Pad7 = b""


def topic(modules: ModuleRanges) -> Topic:
    """Modules that are loaded: `modules` is told where they lie."""
    facts: dict[str, Json] = {"path": {"type": "string", "description": "file: its path; empty where it is not known"}}
    return Topic(ModuleLoad, (_probe(),), ("module_load.bpf.c",), facts, partial(_enrich, modules))


def _enrich(modules: ModuleRanges, event: Event) -> Mapping[str, Json] | None:
    if not isinstance(event, ModuleLoad):
        return None
    if event.step == "linked":
        modules.linked(event.name, event.code_address, event.code_size)
    if not event.path_length:
        return {"path": ""}
    text, _ = path_text(event.path, event.path_length, truncated=event.path_truncated, deleted=event.file_deleted)
    return {"path": text}


def _probe() -> Probe:
    hooks = {"kernel_read_file": ("read_file",), "kernel_load_data": ("load_data",)}
    # No canary can load a module without harm. A raw tracepoint that is attached runs.
    linked = Program(AttachType.RAW_TRACEPOINT, "module_load", f"{PREFIX}_linked", proven=False)
    where_there_are_any = Program(
        AttachType.RAW_TRACEPOINT, "module_load", f"{PREFIX}_linked", proven=False, optional=True
    )
    limits = "refuses by where the module comes from; what it is called is known only once it is linked"
    everything = own_fields(ModuleLoad)
    return Probe(
        "module_load",
        ModuleLoad,
        (
            *(
                hooked(attach, hooks, fields=everything, also=(linked,), limits=limits)
                for attach in (AttachType.LSM, AttachType.FMOD_RET, AttachType.KPROBE)
            ),
            called(
                {"init_module": "init_module", "finit_module": "finit_module"},
                fields=everything,
                also=(where_there_are_any,),
                limits=f"{SYSCALL_LIMITS}; and attempts that the kernel refuses at once are events too",
            ),
        ),
        _canary,
    )


def _canary() -> None:
    """Ask the kernel to load a module from a file that is not a module, and from memory that it cannot read.

    The file's size is not what its status says, so that it is given up before it is parsed. Raises `OSError`,
    `CannotProve`.
    """
    descriptor = os.open("/sys/kernel/uevent_seqnum", os.O_RDONLY | os.O_CLOEXEC)
    try:
        system_call(_SYS_FINIT_MODULE, descriptor, b"", 0)
    finally:
        os.close(descriptor)
    system_call(_SYS_INIT_MODULE, None, 4096, b"")
    if is_set(_NO_MODULES, "1"):
        raise CannotProve(f"{_NO_MODULES} is 1, and the kernel takes no modules")
