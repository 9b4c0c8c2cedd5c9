"""What this kernel accepts. Versions are never tested: each feature is tried, but nothing is attached for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import KernelError
from . import attach, bpf
from .btf import Btf
from .counting import counting, fetch_adding, setting_retval, walking
from .program import AttachType, Program

_HARMLESS_TARGETS = {
    AttachType.LSM: "bpf",
    AttachType.FMOD_RET: "security_bpf",
    AttachType.FENTRY: "security_bpf",
    AttachType.KPROBE: "security_bpf",
    AttachType.KRETPROBE: "security_bpf",
    AttachType.KPROBE_OVERRIDE: "__x64_sys_bpf",
    AttachType.TRACEPOINT: "sched/sched_process_exit",
    AttachType.RAW_TRACEPOINT: "sched_process_exit",
    AttachType.SYSCALL: "bpf",
    AttachType.CGROUP_SYSCTL: "",
    AttachType.PERF_EVENT: "1000000000",
}
_TRACING = bpf.ProgramSpec("krie_try", bpf.ProgType.RAW_TRACEPOINT)
_ON_CGROUP = bpf.ProgramSpec("krie_try", bpf.ProgType.CGROUP_SYSCTL, 18)  # BPF_CGROUP_SYSCTL


@dataclass(frozen=True, slots=True)
class Features:
    """What was tried, for plugins that choose by it and for `krie doctor`."""

    release: str = ""
    machine: str = ""
    refused: Mapping[AttachType, str] = field(default_factory=dict)
    """Attach types that cannot work on this kernel, and why. Accepted is not alive: see `Probe.canary`."""
    fetch_add: bool = False
    """BPF programs can use what an atomic addition returns."""
    set_retval: bool = False
    """A program on a cgroup can choose the error that its refusal gives (b44123b4a3dc); else it is EPERM."""
    task_btf: bool = False
    """BPF programs of every type can follow the current task's pointers without a helper."""
    tried: bool = False
    """False: nothing was tried, as for commands that need no root; plugins should then declare all they have."""

    @property
    def macros_refused(self) -> frozenset[str]:
        """Macros for C sources of what was tried in vain, even where the kernel's BTF tells of it."""
        tried = {
            "KRIE_HAS_FETCH_ADD": self.fetch_add,
            "KRIE_HAS_SET_RETVAL": self.set_retval,
            "KRIE_HAS_TASK_BTF": self.task_btf,
        }
        if AttachType.CGROUP_SYSCTL in self.refused:
            tried.pop("KRIE_HAS_SET_RETVAL")  # no program here could use it, nor was its refusal to be learned
        return frozenset(name for name, works in tried.items() if self.tried and not works)

    def to_json(self) -> dict[str, Any]:
        """For the loader's message and for `krie doctor --json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Features:
        """The inverse of `to_json`."""
        refused = {AttachType(name): str(reason) for name, reason in data["refused"].items()}
        accepted = {name: data[name] for name in ("fetch_add", "set_retval", "task_btf", "tried")}
        return cls(data["release"], data["machine"], refused, **accepted)


def try_features(places: attach.Places, btf: Btf) -> Features:
    """Have the verifier look at a program of each attach type that does nothing. Raises `KernelError` without BPF."""
    system = os.uname()
    array = bpf.map_create(bpf.MapType.ARRAY, 4, 8, 1, "krie_try")
    try:
        os.close(bpf.map_create(bpf.MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE"), "krie_try"))
        refused = {each: reason for each in AttachType if (reason := _refused(each, array, places))}
        return Features(
            system.release,
            system.machine,
            refused,
            fetch_add=_accepts(_TRACING, fetch_adding(array)),
            set_retval=_accepts(_ON_CGROUP, setting_retval()),
            task_btf=_walks(btf, cgroups=AttachType.CGROUP_SYSCTL not in refused),
            tried=True,
        )
    finally:
        os.close(array)


def _refused(type_: AttachType, array: int, places: attach.Places) -> str:
    """Why this attach type cannot work here; empty where the verifier takes such a program and its place exists."""
    if obstacle := attach.obstacle(type_, places):
        return obstacle
    program = Program(type_, _HARMLESS_TARGETS[type_], "krie_try")
    try:
        os.close(attach.load(program, counting(type_, array, 0), places))
    except KernelError as error:
        if error.exhausted:
            raise
        return str(error)
    return ""


def _walks(btf: Btf, *, cgroups: bool) -> bool:
    """Whether the two types of programs do that have the fewest helpers and the most of them, if there are both."""
    cred, uid = btf.offset("task_struct", "cred"), btf.offset("cred", "uid.val")
    if cred is None or uid is None:
        return False
    return all(_accepts(program, walking(cred, uid)) for program in (_TRACING, *([_ON_CGROUP] if cgroups else [])))


def _accepts(program: bpf.ProgramSpec, instructions: bytes) -> bool:
    try:
        os.close(bpf.prog_load(program, instructions))
    except KernelError as error:
        if error.exhausted:
            raise
        return False
    return True
