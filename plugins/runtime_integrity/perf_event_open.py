"""perf_event_open(2): the event, where the kernel shows it, and what proves that it does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import (
    S32,
    U32,
    U64,
    AttachType,
    Bool,
    Chars,
    Choice,
    Doc,
    Event,
    Inline,
    Pad7,
    PerfEventAttr,
    Probe,
    own_fields,
    perf_event_open,
)

from .topic import SYSCALL_LIMITS, Topic, called, hooked

TYPES = {0: "hardware", 1: "software", 2: "tracepoint", 3: "hw_cache", 4: "raw", 5: "breakpoint"}
_TYPE_SOFTWARE, _CONFIG_DUMMY = 1, 9


@dataclass(frozen=True, slots=True)
class PerfEventOpen(Event):
    """A performance event is opened: a counter, samples, a tracepoint, a breakpoint, a kprobe or a uprobe."""

    KIND: ClassVar[int] = 0x0107
    NAME: ClassVar[str] = "runtime_integrity.perf_event_open"
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {"target": ("target_tgid", "target_start_time")}
    ALIKE: ClassVar[tuple[str, ...]] = ("target",)

    config: Annotated[U64, Doc("which event of its type; of a kprobe or uprobe bit 0: at the function's return")]
    offset: Annotated[U64, Doc("kprobe, uprobe: where in the function or the file")]
    target_start_time: Annotated[U64, Doc("start of the process that is measured, ns since boot; 0: whole CPUs")]
    target_tgid: Annotated[U32, Inline(), Doc("that process; 0: whole CPUs")]
    on_cpu: Annotated[S32, Doc("CPU that is measured; -1: wherever the target runs")]
    type: Annotated[str, Choice("I", TYPES), Inline(), Doc("type of event; `other`: see `pmu`")]
    pmu: Annotated[str, Chars(32), Inline(), Doc("what measures, such as cpu, kprobe, uprobe")]
    probed: Annotated[
        str,
        Chars(128),
        Doc("kprobe, uprobe: the function or the file, read from user memory, which the caller can change"),
    ]
    probe: Annotated[Bool, Inline(), Doc("it puts a kprobe or a uprobe into code")]
    kernel: Annotated[Bool, Inline(), Doc("what happens in the kernel counts too")]
    other_user: Annotated[Bool, Inline(), Doc("the target's real user is another one; false for whole CPUs")]
    attr_trusted: Annotated[
        Bool,
        Inline(),
        Doc("the attributes are the kernel's own copy, not user memory that the caller can still change"),
    ]
    compat: Annotated[Bool, Inline(), Doc("32-bit system call")]
    pad: Pad7 = b""


def topic() -> Topic:
    """Performance events."""
    everything = own_fields(PerfEventOpen)
    probe = Probe(
        "perf_event_open",
        PerfEventOpen,
        (
            *(
                hooked(
                    attach,
                    {"perf_event_alloc": ("perf_alloc",)},
                    fields=everything,
                    limits="sees what the kernel's own permission checks let pass",
                )
                for attach in (AttachType.LSM, AttachType.FMOD_RET, AttachType.KPROBE)
            ),
            called(
                {"perf_event_open": "perf"},
                fields=everything,
                limits=f"{SYSCALL_LIMITS}; `pmu` is empty for hardware that is not a CPU core",
            ),
        ),
        _canary,
    )
    return Topic(PerfEventOpen, (probe,), ("perf_event_open.bpf.c",))


def _canary() -> None:
    """Open an event that counts nothing, on ourselves, outside the kernel: anybody may."""
    attributes = PerfEventAttr(type=_TYPE_SOFTWARE, config=_CONFIG_DUMMY, exclude_kernel=1, exclude_hv=1)
    opened = perf_event_open(attributes, 0, -1)
    if opened >= 0:
        os.close(opened)
