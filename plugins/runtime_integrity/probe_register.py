"""Changes of what kernel functions do, by the kernel's own means: the event, its probes, and who is behind them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from krie import (
    U32,
    U64,
    Alternative,
    AttachType,
    Chars,
    Choice,
    Comm,
    Doc,
    Event,
    Hex64,
    Json,
    Pad2,
    PerfEventAttr,
    Probe,
    Program,
    own_fields,
    perf_event_open,
)

from .code_owner import ModuleRanges
from .patched_functions import PatchedFunctions
from .topic import NO_PMU, PREFIX, Topic, pmu_type

MECHANISMS = {
    1: "kprobe",
    2: "kretprobe",
    3: "uprobe",
    4: "trampoline",
    5: "livepatch",
    6: "all_kprobes",
    7: "ftrace",
}
OPERATIONS = {1: "register", 2: "unregister", 3: "enable", 4: "disable", 5: "arm", 6: "disarm", 7: "found"}
_OF_KPROBE = 1
"""Of `Program.argument`: the context is that of a kprobe, not of fentry."""


@dataclass(frozen=True, slots=True)
class ProbeRegister(Event):
    """A kprobe, uprobe, BPF trampoline or live patch is added, removed or switched.

    perf, tracefs, BPF and modules all come to the same functions of the kernel. A return probe is enabled and disabled
    as the kprobe that it is made of. A trampoline brings a BPF program (fentry, fexit, fmod_ret, LSM) to a function.
    """

    KIND: ClassVar[int] = 0x0108
    NAME: ClassVar[str] = "runtime_integrity.probe_register"

    address: Annotated[
        Hex64, Doc("kprobe, kretprobe, trampoline: address of the function; 0 where only its name is given")
    ]
    handler: Annotated[Hex64, Doc("kprobe, kretprobe, livepatch: address of the code that then runs")]
    offset: Annotated[U64, Doc("kprobe: bytes behind the symbol; uprobe: in the file")]
    file_ino: Annotated[U64, Doc("uprobe: inode number of the file")]
    file_dev: Annotated[U32, Doc("uprobe: device of its file system")]
    prog_id: Annotated[U32, Doc("trampoline: id of the BPF program")]
    others: Annotated[U32, Doc("ftrace: further functions that the module patches and of which there is no event")]
    symbol: Annotated[
        str,
        Chars(64),
        Doc("function, as far as whoever registers it names it; uprobe: name of the file, without folder"),
    ]
    module: Annotated[str, Chars(56), Doc("livepatch: the module that brings it; ftrace: the one that has the handler")]
    prog_name: Annotated[Comm, Doc("trampoline: name of the BPF program, which its loader chooses")]
    mechanism: Annotated[str, Choice("B", MECHANISMS), Doc("what is registered")]
    operation: Annotated[
        str, Choice("B", OPERATIONS), Doc("what is done with it; `found`: a scan found it, nobody was seen")
    ]
    pad: Pad2 = b""


def topic(modules: ModuleRanges) -> Topic:
    """Probes and patches; `modules` says whose code a handler is."""
    facts: dict[str, Json] = {
        "owner": {
            "type": "string",
            "description": "whose code `handler` is: `kernel`, a module, `?` for neither; empty: cannot be told",
        }
    }
    return Topic(
        ProbeRegister,
        (_probe(),),
        ("probe_register.bpf.c",),
        facts,
        partial(_enrich, modules),
        partial(_scan, PatchedFunctions()),
        defines={"RUNTIME_INTEGRITY_OF_KPROBE": _OF_KPROBE},
        needs=frozenset({AttachType.FENTRY, AttachType.KPROBE}),
    )


def _enrich(modules: ModuleRanges, event: Event) -> Mapping[str, Json] | None:
    if not isinstance(event, ProbeRegister):
        return None
    if event.module:
        return {"owner": event.module}
    return {"owner": modules.owner_of(event.handler) if event.handler else ""}


def _scan(patched: PatchedFunctions) -> Iterator[Event]:
    for each in patched.look():
        yield ProbeRegister.without_header(
            address=0,
            handler=0,
            offset=0,
            file_ino=0,
            file_dev=0,
            prog_id=0,
            others=each.others,
            symbol=each.function,
            module=each.module,
            prog_name="",
            mechanism="ftrace",
            operation="found",
        )


def _programs(attach: AttachType) -> tuple[Program, ...]:
    def at(target: str, name: str, *, proven: bool = False) -> Program:
        argument = _OF_KPROBE if attach is AttachType.KPROBE else 0
        return Program(attach, target, f"{PREFIX}_{name}", proven=proven, optional=True, argument=argument)

    return (
        at("register_kretprobe", "kretprobe", proven=True),
        at("register_kprobe", "register", proven=True),
        at("__unregister_kprobe_top", "unregister"),
        at("enable_kprobe", "enable"),
        at("disable_kprobe", "disable"),
        at("write_enabled_file_bool", "switch"),
        at("uprobe_register", "uprobe_new", proven=True),
        at("uprobe_register_refctr", "uprobe_ref", proven=True),
        at("uprobe_unregister", "uprobe_end"),
        at("uprobe_unregister_nosync", "uprobe_gone"),
        at("bpf_trampoline_link_prog", "trampoline_link"),
        at("bpf_trampoline_unlink_prog", "trampoline_end"),
        at("klp_enable_patch", "livepatch"),
    )


def _probe() -> Probe:
    limits = (
        "refuses nothing; its canary proves only that kprobes and uprobes are seen; a module's ftrace handlers are "
        "found by the next scan; fprobes are not seen, but for BPF's, which are events of bpf"
    )
    everything = own_fields(ProbeRegister)
    return Probe(
        "probe_register",
        ProbeRegister,
        (
            Alternative("fentry", _programs(AttachType.FENTRY), fields=everything, limits=limits),
            Alternative(
                "kprobe",
                _programs(AttachType.KPROBE),
                fields=everything,
                limits=f"silent while all kprobes are disarmed; {limits}",
            ),
        ),
        _canary,
    )


def _canary() -> None:
    """Ask for a kprobe and a return probe where no code is, and for uprobes behind a file's end: all are refused.

    Nothing is patched, not even for a moment. Raises `OSError`.
    """
    nowhere = 8
    for returns in (0, 1):
        _refused("kprobe", returns, 0, nowhere)
    file = os.memfd_create("krie-empty", os.MFD_CLOEXEC)
    try:
        path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
        for reference_counter in (0, 2):
            _refused("uprobe", reference_counter << 32, ctypes.addressof(path), 1)
    finally:
        os.close(file)


def _refused(pmu: str, config: int, config1: int, config2: int) -> None:
    """Open a perf event that cannot be."""
    if (type_ := pmu_type(pmu)) == NO_PMU:
        return
    opened = perf_event_open(
        PerfEventAttr(type=type_, config=config, disabled=1, config1=config1, config2=config2), 0, -1
    )
    if opened >= 0:
        os.close(opened)
