"""What runtime_integrity gives to KRIe: probes, events, rules, and the names of programs' attach targets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from krie import (
    Alternative,
    AttachType,
    Btf,
    Enforcement,
    Event,
    Json,
    PluginConfig,
    Probe,
    Program,
    Sensor,
    hookimpl,
    own_fields,
)
from pydantic import Field

from . import canaries
from .events import BpfCall, Ptrace, SysctlWrite

_PREFIX = "runtime_integrity"
_REFUSES = frozenset({Enforcement.REFUSE, Enforcement.KILL})
_ALL_BUT_REQUEST = own_fields(Ptrace) - {"request"}
_NATIVE_ONLY = "does not see 32-bit system calls"
_SYSCALL_LIMITS = "arguments are read before the kernel copies them: the caller can change user memory meanwhile"


class RuntimeIntegrityConfig(PluginConfig):
    """Keys of `[plugins.runtime_integrity]`."""

    map_access: bool = Field(
        False, description="also report bpf() calls that read or write map elements; they are many"
    )


@hookimpl
def krie_config() -> type[PluginConfig]:
    """See `krie.hookspecs`."""
    return RuntimeIntegrityConfig


@hookimpl
def krie_sensor(config: RuntimeIntegrityConfig) -> Sensor:
    """See `krie.hookspecs`."""
    return Sensor(
        name=_PREFIX,
        version="1",
        probes=(_ptrace(), _bpf(), _sysctl_write()),
        events=(Ptrace, BpfCall, SysctlWrite),
        sources=tuple(map(files(__package__).joinpath, ("ptrace.bpf.c", "bpf_call.bpf.c", "sysctl_write.bpf.c"))),
        policies=files("krie.policies").joinpath(_PREFIX),
        defines={"RUNTIME_INTEGRITY_MAP_ACCESS": 1} if config.map_access else {},
    )


@hookimpl
def krie_facts(kind: str) -> Mapping[str, Json] | None:
    """See `krie.hookspecs`."""
    if kind != BpfCall.NAME:
        return None
    return {
        "attach_target": {
            "type": "string",
            "description": "prog_load: the kernel function of `attach_btf_id`; empty for none, or a module's",
        }
    }


@hookimpl
def krie_enrich(event: Event) -> Mapping[str, Json] | None:
    """See `krie.hookspecs`."""
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


def _ptrace() -> Probe:
    def hooked(attach: AttachType, prefix: str, can: frozenset[Enforcement], limits: str) -> Alternative:
        return Alternative(
            str(attach),
            (
                Program(attach, f"{prefix}ptrace_access_check", f"{_PREFIX}_access_{attach}"),
                Program(attach, f"{prefix}ptrace_traceme", f"{_PREFIX}_traceme_{attach}"),
            ),
            fields=_ALL_BUT_REQUEST,
            can=can,
            limits=limits,
        )

    no_request = "does not know which request of ptrace(2) it was"
    return Probe(
        "ptrace",
        Ptrace,
        (
            hooked(AttachType.LSM, "", _REFUSES, no_request),
            hooked(AttachType.FMOD_RET, "security_", _REFUSES, no_request),
            Alternative(
                str(AttachType.KPROBE_OVERRIDE),
                tuple(
                    Program(AttachType.KPROBE_OVERRIDE, f"__x64_sys_{call}", f"{_PREFIX}_{name}_override")
                    for call, name in (
                        ("ptrace", "ptrace"),
                        ("process_vm_readv", "readv"),
                        ("process_vm_writev", "writev"),
                    )
                ),
                fields=own_fields(Ptrace),
                can=_REFUSES,
                limits=f"{_NATIVE_ONLY}; nor access through /proc/TGID/mem",
            ),
            hooked(AttachType.KPROBE, "security_", frozenset({Enforcement.KILL}), no_request),
            Alternative(
                "raw_tracepoint",
                (Program(AttachType.RAW_TRACEPOINT, "sys_enter", f"{_PREFIX}_ptrace_raw"),),
                fields=own_fields(Ptrace),
                can=frozenset({Enforcement.KILL}),
                every_syscall=True,
                limits="sees the system calls, not access through /proc/TGID/mem",
            ),
        ),
        canaries.ptrace,
    )


def _bpf() -> Probe:
    everything = own_fields(BpfCall)

    def hooked(attach: AttachType, target: str, can: frozenset[Enforcement]) -> Alternative:
        program = Program(attach, target, f"{_PREFIX}_bpf_{attach}")
        limits = "`helpers` are read from user memory, which the caller can change meanwhile"
        return Alternative(str(attach), (program,), fields=everything, can=can, limits=limits)

    return Probe(
        "bpf",
        BpfCall,
        (
            hooked(AttachType.LSM, "bpf", _REFUSES),
            hooked(AttachType.FMOD_RET, "security_bpf", _REFUSES),
            Alternative(
                str(AttachType.KPROBE_OVERRIDE),
                (Program(AttachType.KPROBE_OVERRIDE, "__x64_sys_bpf", f"{_PREFIX}_bpf_kprobe_override"),),
                fields=everything,
                can=_REFUSES,
                limits=f"{_NATIVE_ONLY}; {_SYSCALL_LIMITS}",
            ),
            hooked(AttachType.KPROBE, "security_bpf", frozenset({Enforcement.KILL})),
            Alternative(
                "raw_tracepoint",
                (Program(AttachType.RAW_TRACEPOINT, "sys_enter", f"{_PREFIX}_bpf_raw"),),
                fields=everything,
                can=frozenset({Enforcement.KILL}),
                every_syscall=True,
                limits=_SYSCALL_LIMITS,
            ),
        ),
        canaries.bpf,
    )


def _sysctl_write() -> Probe:
    program = Program(AttachType.CGROUP_SYSCTL, "", f"{_PREFIX}_sysctl")
    alternative = Alternative(
        "cgroup_sysctl",
        (program,),
        fields=own_fields(SysctlWrite),
        can=frozenset({Enforcement.REFUSE}),
        limits="writes by kernel code itself, such as boot parameters, do not pass here",
    )
    return Probe("sysctl_write", SysctlWrite, (alternative,), canaries.sysctl)
