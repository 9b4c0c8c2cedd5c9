"""bpf(2): the event, where the kernel shows it, what proves that it does, and the names of programs' attach targets."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from krie import (
    U32,
    U64,
    Alternative,
    AttachType,
    Bitmap,
    Bool,
    Btf,
    Chars,
    Choice,
    Comm,
    Doc,
    Event,
    FlagSet,
    Inline,
    Json,
    Pad4,
    Probe,
    ProgLoad,
    Program,
    own_fields,
    system_call,
)

from .names import ATTACH_TYPES, BPF_COMMANDS, HELPER_NAMES, HELPERS, MAP_TYPES, PROG_TYPES
from .topic import KILLS, NATIVE_ONLY, PREFIX, REFUSES, SYSCALL_LIMITS, Topic

OBJECTS = {1: "map", 2: "prog", 3: "link"}
_SYS_BPF = 321  # x86-64
_PROG_LOAD, _SOCKET_FILTER = 5, 1
_NO_SUCH_COMMAND = 0xFFFF


@dataclass(frozen=True, slots=True)
class BpfCall(Event):
    """A bpf(2) call that changes or inspects what runs in the kernel.

    Reads and writes of map elements are left out unless the plugin's `map_access` is set.
    """

    KIND: ClassVar[int] = 0x0102
    NAME: ClassVar[str] = "runtime_integrity.bpf"
    VERSION: ClassVar[int] = 3

    target_ino: Annotated[
        U64, Doc("link_create, prog_attach, prog_detach: inode of what the program is attached to; of a cgroup its id")
    ]
    command: Annotated[str, Choice("I", BPF_COMMANDS), Inline(), Doc("what was asked for")]
    prog_type: Annotated[
        str, Choice("I", PROG_TYPES), Inline(), Doc("prog_load: type of the program; else that of `object`, or unspec")
    ]
    map_type: Annotated[
        str, Choice("I", MAP_TYPES), Inline(), Doc("map_create: type of the map; else that of `object`, or unspec")
    ]
    attach_type: Annotated[
        str,
        Choice("I", ATTACH_TYPES),
        Inline(),
        Doc("prog_load: expected attach type; link_create, prog_attach, prog_detach; cgroup_inet_ingress is 0"),
    ]
    object_id: Annotated[U32, Doc("id of `object`")]
    ifindex: Annotated[U32, Doc("network interface that a program is attached to (xdp, tcx, netkit)")]
    attach_btf_id: Annotated[U32, Doc("prog_load: BTF type id of the kernel function that it is meant for; 0: none")]
    insn_count: Annotated[U32, Inline(), Doc("prog_load: number of instructions")]
    helpers: Annotated[
        tuple[str, ...],
        FlagSet("I", HELPERS),
        Inline(),
        Doc(
            "prog_load: helpers called by which it changes other programs' work; send_signal also for "
            "bpf_send_signal_task, a function of the kernel"
        ),
    ]
    called: Annotated[
        tuple[str, ...],
        Bitmap(32, HELPER_NAMES),
        Doc("prog_load: all helpers called, by the kernel's names, or numbers that this KRIe has no name for"),
    ]
    path: Annotated[
        str,
        Chars(128),
        Doc("obj_pin, obj_get: file; raw_tracepoint_open: tracepoint; in the caller's memory"),
    ]
    name: Annotated[Comm, Doc("name of the program or map that is made, or of `object`; its loader chooses it")]
    object: Annotated[
        str, Choice("B", OBJECTS), Inline(), Doc("what an existing descriptor in the call is; `other` for none")
    ]
    from_kernel: Annotated[Bool, Doc("called by a BPF program (of type syscall) in the kernel, not by bpf(2) itself")]
    attach_btf_module: Annotated[Bool, Inline(), Doc("prog_load: `attach_btf_id` counts in a module's BTF")]
    attr_known: Annotated[
        Bool, Inline(), Doc("the call's attributes could be read; if not, only `command` holds a real value")
    ]
    attr_trusted: Annotated[
        Bool, Inline(), Doc("they are the kernel's own copy, not user memory that the caller can still change")
    ]
    helpers_known: Annotated[
        Bool, Inline(), Doc("prog_load: all instructions were read for `helpers`, `called`; see the probe's limits")
    ]
    calls_kernel: Annotated[Bool, Inline(), Doc("prog_load: it calls functions of the kernel (kfuncs)")]
    compat: Annotated[Bool, Inline(), Doc("32-bit system call")]
    pad: Pad4 = b""


def topic() -> Topic:
    """What is done by bpf(2)."""
    facts: dict[str, Json] = {
        "attach_target": {
            "type": "string",
            "description": "prog_load: the kernel function of `attach_btf_id`; empty for none, or a module's",
        }
    }
    return Topic(BpfCall, (_probe(),), ("bpf_scan.bpf.c", "bpf_object.bpf.c", "bpf_call.bpf.c"), facts, _enrich)


def _enrich(event: Event) -> Mapping[str, Json] | None:
    if not isinstance(event, BpfCall):
        return None
    known = event.attach_btf_id and not event.attach_btf_module
    return {"attach_target": _function_name(event.attach_btf_id) if known else ""}


@lru_cache(maxsize=1)
def _kernel_types() -> Btf:
    return Btf()


@lru_cache(maxsize=1024)
def _function_name(btf_id: int) -> str:
    return _kernel_types().name(btf_id)


def _probe() -> Probe:
    everything = own_fields(BpfCall)
    limits = "`helpers` and `called` are read from user memory, which the caller can change meanwhile"

    def alternative(attach: AttachType, target: str, **more: Any) -> Alternative:
        if attach is AttachType.KPROBE_OVERRIDE:  # nothing goes on to programs that can override
            first = Program(attach, target, f"{PREFIX}_bpf_load_{attach}")
        else:
            through = f"{PREFIX}_scan_{attach}"
            first = Program(attach, target, f"{PREFIX}_bpf_scan_{attach}", through=through, proven=False)
        programs = (first, Program(attach, target, f"{PREFIX}_bpf_{attach}"))
        return Alternative(str(attach), programs, **{"fields": everything, "limits": limits, **more})

    def hooked(attach: AttachType, prefix: str) -> Alternative:
        """By the hook that has the kernel's own copy of the instructions: since 6.9 (1b67772e4e3f)."""
        load = f"{prefix}bpf_prog_load"
        programs = (
            Program(attach, load, f"{PREFIX}_bpf_scan_{attach}", through=f"{PREFIX}_scan_{attach}", proven=False),
            Program(attach, load, f"{PREFIX}_bpf_prog_{attach}"),
            Program(attach, f"{prefix}bpf", f"{PREFIX}_bpf_others_hook"),
        )
        unseen = "what the kernel refuses to load before it asks security modules is not seen"
        return Alternative(f"{attach}_prog_load", programs, fields=everything, can=REFUSES, limits=unseen)

    return Probe(
        "bpf",
        BpfCall,
        (
            hooked(AttachType.LSM, ""),
            alternative(AttachType.LSM, "bpf", can=REFUSES),
            hooked(AttachType.FMOD_RET, "security_"),
            alternative(AttachType.FMOD_RET, "security_bpf", can=REFUSES),
            alternative(
                AttachType.KPROBE_OVERRIDE,
                "__x64_sys_bpf",
                fields=everything - {"from_kernel"},
                can=REFUSES,
                limits=f"{NATIVE_ONLY}; {SYSCALL_LIMITS}",
            ),
            alternative(AttachType.KPROBE, "security_bpf", can=KILLS),
            alternative(
                AttachType.SYSCALL,
                "bpf",
                fields=everything - {"from_kernel"},
                can=KILLS,
                every_syscall=True,
                limits=f"{SYSCALL_LIMITS}; nor does it see calls by BPF programs",
            ),
        ),
        _canary,
    )


def _canary() -> None:
    """Ask for a command that no kernel has, and to load a program that none takes.

    Both are refused after security modules were asked.
    """
    nothing = ctypes.create_string_buffer(8)
    system_call(_SYS_BPF, _NO_SUCH_COMMAND, ctypes.byref(nothing), len(nothing))
    instruction, licence = ctypes.create_string_buffer(b"\xff" * 8, 8), ctypes.create_string_buffer(b"GPL")
    load = ProgLoad(_SOCKET_FILTER, 1, ctypes.addressof(instruction), ctypes.addressof(licence))
    system_call(_SYS_BPF, _PROG_LOAD, ctypes.byref(load), ctypes.sizeof(load))
