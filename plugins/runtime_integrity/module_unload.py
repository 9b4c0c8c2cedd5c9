"""Kernel modules that are unloaded: the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from krie import (
    Alternative,
    AttachType,
    Bool,
    Chars,
    Choice,
    Doc,
    Event,
    Inline,
    Pad4,
    Probe,
    Program,
    own_fields,
    system_call,
)

from .code_owner import ModuleRanges
from .topic import KILLS, NATIVE_ONLY, PREFIX, REFUSES, SYSCALL_LIMITS, Topic, called

STEPS = {1: "asked", 2: "freed"}
_SYS_DELETE_MODULE = 176  # x86-64
_O_NONBLOCK = 0o4000
_NOBODY = b"krie_no_such_module"


@dataclass(frozen=True, slots=True)
class ModuleUnload(Event):
    """A kernel module is unloaded: one event when that is requested, and one when the module is freed.

    A request that fails is the first event only. Modules are freed by failed loads too.
    """

    KIND: ClassVar[int] = 0x0105
    NAME: ClassVar[str] = "runtime_integrity.module_unload"

    name: Annotated[
        str, Chars(56), Inline(), Doc("name of the module; asked: read from user memory, which the caller can change")
    ]
    step: Annotated[
        str, Choice("B", STEPS), Inline(), Doc("`asked` for by delete_module(2), or its memory is about to be `freed`")
    ]
    forced: Annotated[Bool, Inline(), Doc("asked: although it is in use (O_TRUNC)")]
    failed_load: Annotated[Bool, Inline(), Doc("freed: not by delete_module(2), since it could not be loaded")]
    compat: Annotated[Bool, Inline(), Doc("32-bit system call")]
    pad: Pad4 = b""


def topic(modules: ModuleRanges) -> Topic:
    """Modules that are unloaded: `modules` is told, too."""
    return Topic(ModuleUnload, (_probe(),), ("module_unload.bpf.c",), enrich=partial(_enrich, modules))


def _enrich(modules: ModuleRanges, event: Event) -> None:
    """No facts; but once a module is freed, its place may be another's."""
    if isinstance(event, ModuleUnload) and event.step == "freed":
        modules.freed(event.name)


def _probe() -> Probe:
    everything = own_fields(ModuleUnload)
    # No canary can unload a module without harm. A raw tracepoint that is attached runs.
    freed = Program(AttachType.RAW_TRACEPOINT, "module_free", f"{PREFIX}_freed", proven=False)
    where_there_are_any = Program(
        AttachType.RAW_TRACEPOINT, "module_free", f"{PREFIX}_freed", proven=False, optional=True
    )

    def capable(attach: AttachType, target: str) -> Alternative:
        return Alternative(
            str(attach),
            (Program(attach, target, f"{PREFIX}_capable"), freed),
            fields=everything,
            can=REFUSES,
            limits="refuses where the kernel asks for the capability, before it looks for the module",
        )

    def at_entry(attach: AttachType, name: str) -> Alternative:
        return Alternative(
            str(attach),
            (Program(attach, "__x64_sys_delete_module", f"{PREFIX}_unload_{name}"), freed),
            fields=everything,
            can=REFUSES if attach is AttachType.KPROBE_OVERRIDE else KILLS,
            limits=f"{NATIVE_ONLY}; {SYSCALL_LIMITS}",
        )

    return Probe(
        "module_unload",
        ModuleUnload,
        (
            capable(AttachType.LSM, "capable"),
            capable(AttachType.FMOD_RET, "security_capable"),
            at_entry(AttachType.KPROBE_OVERRIDE, "override"),
            at_entry(AttachType.KPROBE, "kprobe"),
            called({"delete_module": "unload"}, fields=everything, also=(where_there_are_any,)),
        ),
        _canary,
    )


def _canary() -> None:
    """Unload a module that nobody has."""
    system_call(_SYS_DELETE_MODULE, _NOBODY, _O_NONBLOCK)
